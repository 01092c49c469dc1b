"""How an agent speaks with the API, whatever the API does."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest

from queueing.nats.accounts.document import NatsLogin, read_login
from runtime.tasks import spawn
from tests.support.waiting import PATIENCE_S, Signal, until
from wire.worker_api import CONNECT_PATH, HEARTBEAT_PATH
from worker_agent.registration import (
    ConnectError,
    InstanceRef,
    Registration,
    Status,
    read_connect_response,
    register_until_done,
)

CONNECTED = {
    "region": "local",
    "nats": {"urls": ["nats://a:1"], "jwt": "j", "seed": "s", "apiPrefix": "nvcf.js"},
    "token": "t1",
    "expiresInSeconds": 600,
    "leaseSeconds": 30,
}
WELL = Status(healthy=True, slots=4, busy=0, stopping=False)


class Api:
    """Answers as a test says; tells of every call."""

    def __init__(self, answer: Callable[[str], Mapping[str, object]]) -> None:
        self.answer = answer
        self.calls: list[tuple[str, str, object]] = []
        self._called = Signal()

    async def post(self, path: str, token: str, document: object) -> Mapping[str, object]:
        self.calls.append((path, token, document))
        self._called.notify()
        return self.answer(path)

    def of(self, path: str) -> list[tuple[str, object]]:
        return [(token, document) for called, token, document in self.calls if called == path]

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(lambda: self.calls, lambda _: condition(), what=condition, changed=self._called)


def willing(path: str) -> Mapping[str, object]:
    return CONNECTED if path == CONNECT_PATH else {"leaseSeconds": 30}


class Agent:
    def __init__(self, api: Api, registration_token: str = "") -> None:
        self.now = WELL
        self.renewals = 0
        self.asked: list[int] = []
        self.told: list[str] = []
        self.registration = Registration(
            api, InstanceRef("i1", "f1", "v1", {}, registration_token), "t0", self, read_login
        )

    def status(self) -> Status:
        return self.now

    def concurrency_requested(self, concurrency: int) -> None:
        self.asked.append(concurrency)

    def stop_requested(self, reason: str) -> None:
        self.told.append(reason)

    async def login_renewed(self) -> None:
        self.renewals += 1


async def test_connects_as_the_instance_it_is_and_goes_on_with_the_new_token() -> None:
    api = Api(willing)
    agent = Agent(api)
    response = await agent.registration.connect()
    assert api.of(CONNECT_PATH) == [
        ("t0", {"instanceId": "i1", "functionId": "f1", "functionVersionId": "v1", "worker": {}})
    ]
    assert response.login == NatsLogin(("nats://a:1",), "j", "s", "nvcf.js")
    assert agent.registration.response is response
    agent.registration.start()
    await api.until(lambda: bool(api.of(HEARTBEAT_PATH)))
    await agent.registration.stop()
    token, document = api.of(HEARTBEAT_PATH)[0]
    assert token == "t1"
    assert document == {
        "instanceId": "i1",
        "healthy": True,
        "slots": 4,
        "busy": 0,
        "stopping": False,
    }


@pytest.mark.parametrize("status", [0, 404, 409, 429, 500, 503])
async def test_tries_again_what_may_pass(status: int) -> None:
    failures = [ConnectError("away", status), ConnectError("away", status)]

    def answer(path: str) -> Mapping[str, object]:
        if failures:
            raise failures.pop()
        return willing(path)

    api = Api(answer)
    async with asyncio.timeout(PATIENCE_S):
        await Agent(api).registration.connect()
    assert len(api.calls) == 3


async def test_a_spare_does_not_hurry_when_the_api_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    failures = iter([409] * 12 + [503, 409, 503, 0])

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    def answer(path: str) -> Mapping[str, object]:
        status = next(failures, None)
        if status is not None:
            raise ConnectError(f"status {status}", status)
        return willing(path)

    monkeypatch.setattr("worker_agent.registration.asyncio.sleep", sleep)
    assert await register_until_done(Api(answer), "t", {}, lambda _: None) == CONNECTED
    assert waits[0] < 1.0
    assert min(waits[-4:]) >= 12.0


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_gives_up_what_no_attempt_can_change(status: int) -> None:
    def answer(path: str) -> Mapping[str, object]:
        raise ConnectError("no", status)

    api = Api(answer)
    with pytest.raises(ConnectError):
        await Agent(api).registration.connect()
    assert len(api.calls) == 1


async def test_tells_a_change_at_once_and_says_goodbye() -> None:
    api = Api(willing)
    agent = Agent(api)
    await agent.registration.connect()
    agent.registration.start()
    await api.until(lambda: len(api.of(HEARTBEAT_PATH)) == 1)
    agent.now = WELL._replace(healthy=False)
    agent.registration.changed()
    await api.until(lambda: len(api.of(HEARTBEAT_PATH)) == 2)
    agent.now = WELL._replace(stopping=True)
    await agent.registration.stop()
    told = [document for _, document in api.of(HEARTBEAT_PATH)]
    assert [one["healthy"] for one in told] == [True, False, True]  # type: ignore[index]
    assert told[-1]["stopping"] is True  # type: ignore[index]


async def test_every_answer_may_say_how_many_requests_are_asked_of_us() -> None:
    """An older API does not, and what is no such number is not believed."""
    answers: list[object] = [3, None, 5, 0, -1, True, "7", 4.0, 16_385, 10**12, [], 5, 1]

    def answer(path: str) -> Mapping[str, object]:
        told = answers.pop(0) if answers else None
        more = {} if told is None else {"maxRequestConcurrency": told}
        return {**willing(path), "leaseSeconds": 0.01, **more}

    api = Api(answer)
    agent = Agent(api)
    response = await agent.registration.connect()
    assert (response.concurrency, agent.asked) == (3, [3])
    agent.registration.start()
    await api.until(lambda: not answers)
    await agent.registration.stop()
    assert agent.asked == [3, 5, 5, 1]


async def test_a_login_that_the_broker_refuses_is_renewed_at_once() -> None:
    api = Api(willing)
    agent = Agent(api)
    await agent.registration.connect()
    agent.registration.start()
    agent.registration.renew_soon()
    await api.until(lambda: len(api.of(CONNECT_PATH)) == 2)
    await until(lambda: agent.renewals == 1)
    # The attempts to connect meanwhile are of the old login.
    agent.registration.renew_soon()
    await agent.registration.stop()
    assert len(api.of(CONNECT_PATH)) == 2


async def test_three_heartbeats_a_lease() -> None:
    api = Api(lambda path: {**willing(path), "leaseSeconds": 0.06})
    agent = Agent(api)
    await agent.registration.connect()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    agent.registration.start()
    await api.until(lambda: len(api.of(HEARTBEAT_PATH)) == 4)
    assert loop.time() - begun >= 0.06
    await agent.registration.stop()


async def test_renews_at_half_time_and_keeps_trying() -> None:
    refusals = [ConnectError("away"), ConnectError("no", 401)]
    connects = 0
    failing = []

    def answer(path: str) -> Mapping[str, object]:
        nonlocal connects
        if path == HEARTBEAT_PATH:
            raise ConnectError("away")
        connects += 1
        failing.append(agent.registration.is_renewal_failing)
        if connects > 1 and refusals:
            raise refusals.pop()
        return {**CONNECTED, "token": f"t{connects}", "expiresInSeconds": 0.1}

    api = Api(answer)
    agent = Agent(api)
    await agent.registration.connect()
    agent.registration.start()
    await api.until(lambda: connects >= 5)
    await agent.registration.stop()
    assert [token for token, _ in api.of(CONNECT_PATH)][:5] == ["t0", "t1", "t1", "t1", "t4"]
    assert agent.renewals >= 1
    # As it was when each attempt began.
    assert failing[:5] == [False, False, True, True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"region": ""},
        {"token": None},
        {"expiresInSeconds": 0},
        {"leaseSeconds": "30"},
        {"leaseSeconds": True},
        {"nats": {}},
        {"otherRegions": "eu"},
        {"otherRegions": ["eu", 1]},
        {"nats": {"urls": [], "jwt": "j", "seed": "s", "apiPrefix": "x"}},
    ],
)
def test_an_answer_that_lacks_something_is_no_answer(changes: dict[str, object]) -> None:
    with pytest.raises(ConnectError):
        read_connect_response({**CONNECTED, **changes}, read_login)


def test_other_regions_are_optional() -> None:
    assert read_connect_response(CONNECTED, read_login).other_regions == ()
    several = {**CONNECTED, "otherRegions": ["eu", "us"]}
    assert read_connect_response(several, read_login).other_regions == ("eu", "us")


def test_logins_are_not_shown() -> None:
    response = read_connect_response({**CONNECTED, "token": "sesame", "nats": None}, read_login)
    assert response.login is None
    assert "sesame" not in repr(response)
    login = read_connect_response(CONNECTED, read_login).login
    assert "'s'" not in repr(login)
    assert "'j'" not in repr(login)


async def test_a_worker_whose_record_was_lost_registers_again_as_the_same_instance() -> None:
    lost = [True]

    def answer(path: str) -> Mapping[str, object]:
        if path == HEARTBEAT_PATH and lost:
            lost.clear()
            raise ConnectError("not known", 404)
        return willing(path)

    def post(path: str) -> Mapping[str, object]:
        if path == CONNECT_PATH and api.calls[-1][1] == "t1" and len(api.of(CONNECT_PATH)) == 2:
            raise ConnectError("not known", 404)
        return answer(path)

    api = Api(post)
    agent = Agent(api, "registration")
    await agent.registration.connect()
    agent.registration.start()
    await api.until(lambda: len(api.of(CONNECT_PATH)) == 4)
    await agent.registration.stop()
    tokens = [token for token, _ in api.of(CONNECT_PATH)]
    assert tokens == ["t0", "t1", "registration", "t1"]
    assert agent.told == []


def token_until(ends_at: float) -> str:
    claims = urlsafe_b64encode(json.dumps({"exp": ends_at}).encode()).decode()
    return f"e30.{claims}.c2ln"


@pytest.mark.parametrize(
    ("status", "ends_in_s", "stops"),
    [
        (403, 60, True),
        (409, 60, True),
        (410, 60, True),
        (401, -60, True),
        (401, 60, False),
        (503, -60, False),
    ],
)
async def test_a_worker_that_may_not_register_again_stops(
    status: int, ends_in_s: float, stops: bool
) -> None:
    def answer(path: str) -> Mapping[str, object]:
        raise ConnectError("no", 404 if api.calls[-1][1] == "t0" else status)

    api = Api(answer)
    agent = Agent(api, token_until(time.time() + ends_in_s))
    connecting = spawn(agent.registration.connect(), "connect")
    await api.until(lambda: len(api.calls) >= 2)
    await asyncio.sleep(0)
    connecting.cancel()
    with suppress(ConnectError, asyncio.CancelledError):
        await connecting
    assert agent.told[:1] == (["no"] if stops else [])


async def test_a_worker_is_told_to_stop_and_says_that_it_is_gone() -> None:
    api = Api(lambda path: {**willing(path), "stop": "the version was undeployed"})
    agent = Agent(api)
    await agent.registration.connect()
    assert agent.told == ["the version was undeployed"]
    await agent.registration.stop()
    ((_, last),) = api.of(HEARTBEAT_PATH)
    assert isinstance(last, dict)
    assert last["gone"] is True
