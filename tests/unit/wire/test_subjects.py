import pytest

from wire.subjects import (
    cancel_subject,
    consumer_name,
    position_subject,
    queue_subjects,
    read_waiting_notice,
    stream_name,
    waiting_notice,
)

V = "9b2e0c1d-0000-4000-8000-00000000000f"


def test_names_are_those_that_nvcf_workers_look_for() -> None:
    assert stream_name("us-east-1", V) == f"rq_us-east-1_{V}"
    assert consumer_name(stream_name("us-east-1", V)) == f"rq_us-east-1_{V}_workers"
    assert queue_subjects("us-east-1", V) == f"rq.us-east-1.{V}.>"
    assert cancel_subject(V) == f"nvcf.cancel.{V}"
    assert position_subject(V) == f"nvcf.position.{V}"


def test_a_notice_of_waiting_requests_is_read_as_it_was_written() -> None:
    assert read_waiting_notice(waiting_notice("us-east_1", 100_000)) == ("us-east_1", 100_000)


@pytest.mark.parametrize(
    "payload",
    [b"", b"?", V.encode(), b"+", b"+eu", b"+eu -1", b"+e.u 1", b"+ 1", b"+eu " + b"9" * 20],
)
def test_what_is_no_notice_is_none(payload: bytes) -> None:
    assert read_waiting_notice(payload) is None
