"""One line for each thing that has changed between two looks at a deployment."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from gateway.cli.api_client import ApiClient
from gateway.cli.errors import CommandError, Refused, Unreachable
from gateway.cli.watch import Progress, until_gone, until_up


def function(status: str, **instances: str) -> dict[str, Any]:
    shown = [
        {"instanceId": name, "instanceStatus": state, "gpu": "A10G"}
        for name, state in instances.items()
    ]
    return {"status": status, "activeInstances": shown}


def failing(instance_id: str, error: str) -> dict[str, Any]:
    return {"healthInfo": [{"instanceId": instance_id, "error": error}]}


def test_every_instance_is_followed_from_start_to_end() -> None:
    progress = Progress()
    assert progress.lines(function("DEPLOYING", a="STARTING"), {}) == [
        "instance a STARTING (A10G)",
        "DEPLOYING",
    ]
    assert progress.lines(function("DEPLOYING", a="STARTING"), {}) == []
    assert progress.lines(function("DEPLOYING", a="RUNNING", b="STARTING"), {}) == [
        "instance a RUNNING (A10G)",
        "instance b STARTING (A10G)",
    ]
    assert progress.lines(function("DEGRADING", b="STARTING"), {}) == [
        "instance a gone",
        "DEGRADING",
    ]


def test_a_reason_is_told_once_and_by_its_first_line() -> None:
    progress = Progress()
    bad = failing("a", "ended with code 7\nlast line of the log")
    assert progress.lines(function("DEPLOYING"), bad) == [
        "instance a failed: ended with code 7",
        "DEPLOYING",
    ]
    assert progress.lines(function("DEPLOYING"), bad) == []
    assert progress.lines(function("DEPLOYING"), failing("a", "another")) == [
        "instance a failed: another"
    ]


def test_a_credential_that_sees_no_instances_still_sees_the_status() -> None:
    assert Progress().lines({"status": "ACTIVE"}, {}) == ["ACTIVE"]


class Script:
    """An API that answers, or fails, as a test has written down: version and deployment in turn."""

    def __init__(self, *answers: object) -> None:
        self._answers: Iterator[object] = iter(answers)

    async def get(self, path: str) -> object:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return {"deployment" if path.startswith("deployments/") else "function": answer}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.watch.ASK_EVERY_S", 0)


AWAY = Unreachable("it is away")
UP = {"deploymentId": "d"}


async def test_an_api_that_is_away_for_a_while_ends_nothing() -> None:
    said: list[str] = []
    api = Script(function("DEPLOYING"), UP, AWAY, AWAY, function("ACTIVE"), UP)
    assert await until_up(cast("ApiClient", api), "f", "v", said.append) == UP
    assert said == ["DEPLOYING", "it is away; still trying", "The API answers again.", "ACTIVE"]


async def test_an_api_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.watch.UNREACHABLE_S", 0.0)
    with pytest.raises(Unreachable):
        await until_up(cast("ApiClient", Script(*[AWAY] * 100)), "f", "v", lambda _: None)


async def test_a_version_that_is_undeployed_meanwhile_is_not_waited_for() -> None:
    api = Script(function("DEPLOYING"), UP, function("INACTIVE"), Refused(404, "not deployed"))
    with pytest.raises(CommandError, match="not deployed any more"):
        await until_up(cast("ApiClient", api), "f", "v", lambda _: None)


async def test_gone_is_when_no_instance_is_left_either() -> None:
    missing = Refused(404, "not deployed")
    api = Script(
        *(function("INACTIVE", a="RUNNING"), UP),
        *(function("INACTIVE", a="RUNNING"), missing),
        *(function("INACTIVE"), missing),
    )
    said: list[str] = []
    await until_gone(cast("ApiClient", api), "f", "v", said.append)
    assert said == ["instance a RUNNING (A10G)", "INACTIVE", "instance a gone"]
