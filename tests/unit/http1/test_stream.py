"""The null streams, and complete responses."""

import pytest

from http1.stream import (
    IGNORED,
    Failure,
    Headers,
    NullRequestStream,
    NullResponseStream,
    Request,
    RequestStream,
    ResponseStream,
    respond,
)


class Writer:
    """A `ResponseWriter` that records what is sent."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        self.calls.append((status, headers, body_bytes))

    def send_data(self, data: bytes) -> None:
        self.calls.append(data)

    def add_trailers(self, trailers: Headers) -> None: ...

    def send_end(self) -> None:
        self.calls.append("end")

    def abort(self) -> None:
        self.calls.append("abort")

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_writing_paused(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [(b"GET", b"ok", [b"ok"]), (b"HEAD", b"ok", []), (b"GET", b"", [])],
)
def test_a_complete_response_has_its_length_and_no_body_for_head(
    method: bytes, body: bytes, sent: list[bytes]
) -> None:
    writer = Writer()
    request = Request(method, b"/", b"h", [], 0, 0.0)
    assert respond(request, writer, 200, [(b"a", b"b")], body) is IGNORED
    assert writer.calls == [(200, [(b"a", b"b")], len(body)), *sent, "end"]


def test_null_streams_ignore_every_event() -> None:
    request: RequestStream = NullRequestStream()
    request.request_data(b"x")
    request.first_part_end()
    request.request_end()
    request.request_broken()
    request.pause_writing()
    request.resume_writing()
    response: ResponseStream = NullResponseStream()
    response.response_whole(200, [], 1, b"x")
    response.response_broken(Failure.RESET, is_stale=False)
    response.pause_writing()
    response.resume_writing()


class Recorder(NullResponseStream):
    def __init__(self) -> None:
        self.calls: list[object] = []

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        self.calls.append((status, headers, body_bytes))

    def response_data(self, data: bytes) -> None:
        self.calls.append(data)

    def response_end(self) -> None:
        self.calls.append("end")


@pytest.mark.parametrize(("body", "data"), [(b"ok", [b"ok"]), (b"", [])])
def test_a_whole_response_is_head_data_and_end(body: bytes, data: list[bytes]) -> None:
    recorder = Recorder()
    recorder.response_whole(200, [(b"a", b"b")], len(body), body)
    assert recorder.calls == [(200, [(b"a", b"b")], len(body)), *data, "end"]
