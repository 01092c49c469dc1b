"""Which client gets what, and when."""

import pytest

from tests.support.envelopes import envelope
from worker_agent.compat.polling import (
    GRACE_S,
    MAX_WAITING,
    MIN_PATIENCE_S,
    PolledClient,
    Polling,
    Stage,
)


class World:
    """One request whose first client waits until 60; ``calls`` is what the port was called with."""

    def __init__(self, due_at: float = 60.0, window_s: float = 60.0, **more: bool) -> None:
        self.calls: list[str] = []
        self.wakes: float | None = None
        self.names: dict[int, str] = {}
        self.polling = Polling(self, self.client("first", due_at), window_s, b"empty", **more)
        self.polling.begin()

    def client(self, name: str, due_at: float = 60.0) -> PolledClient:
        client = PolledClient(envelope(), due_at)
        self.names[id(client)] = name
        return client

    def poll(self, name: str, now: float, due_at: float = 1000.0) -> None:
        self.polling.polled(self.client(name, due_at), now)

    def postponed(self) -> "World":
        """Tell the first client to ask again."""
        self.polling.due()
        self.polling.listening()
        self.polling.posted(60.0)
        self.calls.clear()
        return self

    def listen(self) -> None:
        self.calls.append("listen")

    def post(self, client: PolledClient, response: bytes) -> None:
        self.calls.append(f"post {self.names[id(client)]} {response.decode()}")

    def wake_at(self, due_at: float | None) -> None:
        self.wakes = due_at

    def ask_again(self, client: PolledClient) -> None:
        self.calls.append(f"ask again {self.names[id(client)]}")

    def respond(self, client: PolledClient) -> None:
        self.calls.append(f"respond {self.names[id(client)]}")

    def give_up(self) -> None:
        self.calls.append("give up")


def test_a_response_in_time_is_the_first_clients() -> None:
    world = World()
    assert world.wakes == 60.0
    world.polling.responded()
    assert world.calls == ["respond first"]
    assert (world.wakes, world.polling.stage) == (None, Stage.OVER)


def test_a_202_is_sent_only_when_polls_are_heard() -> None:
    world = World()
    world.polling.due()
    assert world.calls == ["listen"]
    world.polling.listening()
    assert world.calls == ["listen", "post first empty"]
    world.polling.posted(60.5)
    assert world.wakes == 60.5 + 120.0
    world.poll("second", 61.0, 70.0)
    assert world.wakes == 70.0
    world.polling.due()
    assert world.calls[2:] == ["post second empty"]


def test_a_response_takes_the_place_of_a_202_that_is_not_sent() -> None:
    world = World()
    world.polling.due()
    world.polling.responded()
    world.polling.listening()
    assert world.calls == ["listen", "respond first"]


def test_a_client_that_cannot_be_told_waits_on() -> None:
    world = World()
    world.polling.due()
    world.polling.not_listening(60.0)
    assert world.wakes is not None
    world.polling.due()
    assert world.calls == ["listen", "listen"]
    world.polling.not_listening(61.0)
    world.polling.responded()
    assert world.calls[2:] == ["respond first"]


def test_a_response_between_two_polls_is_the_next_clients() -> None:
    world = World().postponed()
    world.polling.responded()
    assert world.calls == []
    world.poll("second", 62.0)
    assert world.calls == ["respond second"]


def test_a_poll_during_a_post_is_served_after_it() -> None:
    world = World()
    world.polling.due()
    world.polling.listening()
    world.poll("second", 60.1)
    world.polling.responded()
    assert world.calls[-1] == "post first empty"
    world.polling.posted(60.2)
    assert world.calls[-1] == "respond second"


def test_news_end_the_wait_and_the_latest_counts() -> None:
    world = World()
    world.polling.progressed(b"15")
    world.polling.progressed(b"45")
    world.polling.listening()
    assert world.calls == ["listen", "post first 45"]
    world.polling.progressed(b"60")
    world.polling.progressed(b"75")
    world.polling.posted(5.0)
    world.poll("second", 6.0)
    assert world.calls[2:] == ["post second 75"]
    world.polling.posted(7.0)
    world.poll("third", 8.0)
    assert world.calls[3:] == []


def test_a_window_that_has_ended_is_answered_at_once() -> None:
    world = World().postponed()
    world.poll("second", 70.0, due_at=69.0)
    assert world.calls == ["post second empty"]


@pytest.mark.parametrize(("window_s", "patience_s"), [(60.0, 120.0), (1.0, MIN_PATIENCE_S)])
def test_nobody_polls(window_s: float, patience_s: float) -> None:
    world = World(window_s=window_s).postponed()
    assert world.wakes == 60.0 + patience_s
    world.polling.due()
    assert world.calls == ["give up"]
    assert not world.polling.has_room()


def test_a_202_that_nobody_takes_before_the_windows_end_ends_it() -> None:
    world = World()
    world.polling.progressed(b"15")
    world.polling.listening()
    world.polling.post_failed(30.0)
    assert world.calls[-1] == "give up"


def test_after_the_windows_end_a_client_may_still_come() -> None:
    world = World()
    world.polling.due()
    world.polling.listening()
    world.polling.post_failed(61.0)
    assert world.wakes == 61.0 + GRACE_S
    world.poll("second", 62.0)
    world.polling.responded()
    assert world.calls[-1] == "respond second"


def test_nobody_is_told_to_ask_again_while_the_request_is_not_complete() -> None:
    world = World()
    world.polling.hold()
    world.polling.due()
    world.polling.progressed(b"15")
    assert world.calls == []
    world.polling.release(61.0)
    assert world.calls == ["listen"]


def test_a_request_that_completes_in_time_changes_nothing() -> None:
    world = World()
    world.polling.hold()
    world.polling.release(10.0)
    assert world.calls == []


def test_every_client_asks_the_inference_server_that_says_202_itself() -> None:
    world = World(asks_again=True)
    assert world.wakes is None
    world.polling.progressed(b"its own")
    world.polling.listening()
    world.polling.posted(1.0)
    world.poll("second", 2.0)
    assert world.calls == ["listen", "post first its own", "ask again second"]
    world.polling.progressed(b"again")
    world.polling.posted(3.0)
    world.poll("third", 4.0)
    world.polling.responded()
    assert world.calls[3:] == ["post second again", "ask again third", "respond third"]


def test_only_so_many_clients_wait() -> None:
    world = World()
    for number in range(MAX_WAITING):
        assert world.polling.has_room()
        world.poll(f"{number}", 1.0)
    assert not world.polling.has_room()


def test_nothing_happens_after_the_end() -> None:
    world = World()
    world.polling.end()
    world.polling.due()
    world.polling.responded()
    world.polling.listening()
    world.poll("late", 1.0)
    assert (world.calls, world.wakes) == ([], None)
