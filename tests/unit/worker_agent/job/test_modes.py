"""Which requests are in compatibility mode."""

import pytest

from worker_agent.job.modes import Mode, mode_of


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ([], Mode.COMPAT),
        ([(b"accept", b"application/json")], Mode.COMPAT),
        ([(b"accept", b"application/json, text/event-stream")], Mode.COMPAT),
        ([(b"accept", b"text/event-stream;q=0.9, application/json")], Mode.COMPAT),
        ([(b"Accept", b"Text/Event-Stream")], Mode.POLLED),
        ([(b"accept", b"text/event-stream; charset=utf-8")], Mode.POLLED),
        ([(b"nvcf-feature-disable-worker-compatibility", b"true")], Mode.POLLED),
        ([(b"nvcf-feature-disable-worker-compatibility", b"false")], Mode.COMPAT),
        ([(b"content-type", b"application/grpc+proto")], Mode.POLLED),
    ],
)
def test_the_headers_decide(headers: list[tuple[bytes, bytes]], mode: Mode) -> None:
    assert mode_of(headers, is_polled=True, has_compat=True) is mode
    assert mode_of(headers, is_polled=True, has_compat=False) is Mode.POLLED
    assert mode_of(headers, is_polled=False, has_compat=True) is Mode.PREPARED
