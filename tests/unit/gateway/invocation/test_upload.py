"""A request body on its way."""

from gateway.invocation.upload import Upload
from tests.support.recorder import RecordedResponseWriter, Script


def test_a_body_that_nobody_wants_any_more_is_let_go() -> None:
    upload = Upload(100_000)
    upload.add(b"x" * 90_000)
    upload.take_first_part()
    upload.abort()
    sink = RecordedResponseWriter(Script(), "worker")
    sink.send_head(200, [], None)
    upload.attach(sink)
    assert sink.sent == b""
