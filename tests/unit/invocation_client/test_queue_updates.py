"""What a gateway tells of a call that waits."""

import httpx
import pytest

from invocation_client.queue_updates import (
    MAX_EVENT_CHARACTERS,
    EventReader,
    QueueUpdate,
    waiting_call,
    watched,
)

ID = "0b6c2c2e-7c59-4a43-8a56-1f4f5a6b0001"


def read(reader: EventReader, text: str) -> list[tuple[QueueUpdate | None, bool]]:
    found = [reader.read(line) for line in text.split("\n")]
    return [each for each in found if each != (None, False)]


def test_events_are_read_and_comments_and_unknown_members_are_not() -> None:
    reader = EventReader()
    text = (
        ":\n\n"
        f'event: queued\nid: queued:3\ndata: {{"requestId": "{ID}",\n'
        'data:  "position": 3, "etaSeconds": 12, "more": []}\n\n'
        f'event: leased\nid: leased\ndata: {{"requestId": "{ID}", "position": 0}}\n\n'
        f'event: head\nid: head\ndata: {{"requestId": "{ID}", "status": 200}}\n\n'
    )
    assert read(reader, text) == [
        (QueueUpdate(ID, "queued", 3, 12), False),
        (QueueUpdate(ID, "leased"), False),
        (QueueUpdate(ID, "head"), True),
    ]
    assert reader.last_id == "head"


@pytest.mark.parametrize("data", ["[]", "{", '"text"'])
def test_data_that_is_no_object_is_an_error(data: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        read(EventReader(), f"event: queued\ndata: {data}\n\n")


def test_an_event_without_end_is_an_error() -> None:
    line = "data: " + "x" * 1000 + "\n"
    with pytest.raises(httpx.RemoteProtocolError):
        read(EventReader(), line * (MAX_EVENT_CHARACTERS // 1000 + 1))


def test_only_an_accepted_call_waits() -> None:
    call = httpx.Request(
        "POST",
        "https://gateway.example/f/demo/v1/chat",
        headers={"authorization": "Bearer k", "content-type": "application/json", "prefer": "a=b"},
        json={},
    )
    assert watched(call).headers["prefer"] == "a=b, respond-async"
    headers = {"location": f"/v2/requests/{ID}"}
    assert waiting_call(call, httpx.Response(202, headers=headers), 0) is None
    headers["preference-applied"] = "respond-async"
    assert waiting_call(call, httpx.Response(200, headers=headers), 0) is None
    elsewhere = {**headers, "location": f"https://other.example/v2/requests/{ID}"}
    assert waiting_call(call, httpx.Response(202, headers=elsewhere), 0) is None
    waiting = waiting_call(call, httpx.Response(202, headers=headers), 0)
    assert waiting is not None
    waiting.reader.read("id: queued:4")
    events, response, cancel = waiting.events(), waiting.response(), waiting.cancel()
    url = f"https://gateway.example/v2/requests/{ID}"
    assert [str(each.url) for each in (events, response, cancel)] == [
        f"{url}/events",
        f"{url}/response",
        url,
    ]
    assert events.headers["last-event-id"] == "queued:4"
    assert cancel.method == "DELETE"
    for each in (events, response, cancel):
        assert each.headers["authorization"] == "Bearer k"
        assert "content-type" not in each.headers
        assert "prefer" not in each.headers


def test_events_that_broke_off_after_a_while_are_asked_for_again_and_again() -> None:
    call = httpx.Request("GET", "https://gateway.example/f/demo")
    headers = {"location": f"/v2/requests/{ID}", "preference-applied": "respond-async"}
    waiting = waiting_call(call, httpx.Response(202, headers=headers), 0)
    assert waiting is not None
    for number in range(100):
        waiting.begin_events(60.0 * number)
        assert waiting.broken(60.0 * number + 50) == 0.2
    pauses = []
    while (pause_s := waiting.broken(6000)) is not None:
        pauses.append(pause_s)
        waiting.events()
    assert 8 < sum(pauses) < 15
