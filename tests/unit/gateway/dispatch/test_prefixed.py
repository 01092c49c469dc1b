import pytest

from gateway.dispatch.prefixed import PrefixedResponse
from tests.support.recorder import RecordedResponseWriter, Script


@pytest.mark.parametrize("name", [b"location", b"content-location"])
@pytest.mark.parametrize(
    ("location", "outside"),
    [
        (b"/docs?x=1", b"/f/demo/docs?x=1"),
        (b"http://gw:8080/docs", b"http://gw:8080/f/demo/docs"),
        (b"https://gw:8080/", b"https://gw:8080/f/demo/"),
        (b"http://elsewhere/docs", b"http://elsewhere/docs"),
        (b"//elsewhere/docs", b"//elsewhere/docs"),
        (b"docs", b"docs"),
        (b"", b""),
    ],
)
def test_a_redirect_leads_back_to_the_function(
    name: bytes, location: bytes, outside: bytes
) -> None:
    script = Script()
    client = RecordedResponseWriter(script, "client")
    response = PrefixedResponse(client, b"/f/demo", b"gw:8080")
    response.send_head(307, [(name, location), (b"x-other", b"/docs")], 0)
    assert client.head == (307, [(name, outside), (b"x-other", b"/docs")], 0)


def test_everything_else_passes() -> None:
    script = Script()
    client = RecordedResponseWriter(script, "client")
    response = PrefixedResponse(client, b"/f/demo", b"gw")
    response.pause_reading()
    response.resume_reading()
    response.send_head(200, [], 2)
    response.send_data(b"ab")
    assert not response.is_writing_paused()
    response.send_end()
    assert script.lines == [
        "client.pause",
        "client.resume",
        "client.head 200",
        "client.body b'ab'",
        "client.end",
    ]
    broken = RecordedResponseWriter(Script(), "client")
    PrefixedResponse(broken, b"/f/demo", b"gw").abort()
    assert broken.over
