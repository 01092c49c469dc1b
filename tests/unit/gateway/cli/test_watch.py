"""One line is printed for each change between two polls of a deployment."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from gateway.cli.api_client import ApiClient
from gateway.cli.errors import ApiError, CommandError, Unreachable
from gateway.cli.watch import Progress, has_numbers, wait_until_gone, wait_until_up


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


def test_a_reason_is_printed_once_and_by_its_first_line() -> None:
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
    assert progress.lines(function("DEPLOYING"), failing("", "no workers")) == ["no workers"]


def test_a_credential_that_sees_no_instances_still_sees_the_status() -> None:
    assert Progress().lines({"status": "ACTIVE"}, {}) == ["ACTIVE"]


def deployed(least: int, most: int, concurrency: int, gpu: str = "A10G") -> dict[str, Any]:
    numbers = {"minInstances": least, "maxInstances": most, "maxRequestConcurrency": concurrency}
    return {"gpu": gpu, **numbers}


def running(*slots: int, gpu: str = "A10G", of: str = "d") -> list[dict[str, Any]]:
    return [
        {"icmsRequestId": of, "gpu": gpu, "slots": count, "healthy": count > 0} for count in slots
    ]


@pytest.mark.parametrize(
    ("specs", "instances", "is_so"),
    [
        ([deployed(2, 3, 4)], running(4, 4, 0), True),
        ([deployed(2, 3, 4)], running(4, 0), False),
        ([deployed(1, 1, 4)], running(4, 4), False),
        ([deployed(1, 1, 4)], running(8), False),
        ([deployed(1, 1, 4)], running(4) + running(8, of="before"), True),
        ([deployed(0, 2, 4)], [], True),
        ([deployed(1, 1, 4), deployed(1, 1, 8, "L40S")], running(4, 4), False),
        ([deployed(1, 1, 4), deployed(1, 1, 8)], running(8, 4), True),
        ([deployed(2, 2, 4)], None, True),
    ],
)
def test_a_deployment_has_its_numbers_when_its_own_instances_run_with_them(
    specs: list[dict[str, Any]], instances: list[dict[str, Any]] | None, is_so: bool
) -> None:
    deployment = {"deploymentId": "d", "deploymentSpecifications": specs}
    assert has_numbers({"activeInstances": instances}, deployment) is is_so


class Script:
    """An API with scripted responses or errors: version and deployment in turn."""

    def __init__(self, *answers: object) -> None:
        self._answers: Iterator[object] = iter(answers)

    async def get(self, path: str) -> object:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return {"deployment" if path.startswith("deployments/") else "function": answer}


@pytest.fixture(autouse=True)
def _poll_without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.watch.POLL_S", 0)


AWAY = Unreachable("it is away")
UP = {"deploymentId": "d"}


async def test_a_short_outage_of_the_api_does_not_end_the_command() -> None:
    said: list[str] = []
    active = {"status": "ACTIVE"}
    api = Script(function("DEPLOYING"), UP, AWAY, AWAY, active, UP)
    assert await wait_until_up(cast("ApiClient", api), "f", "v", said.append) == UP
    assert said == ["DEPLOYING", "it is away; retrying", "The API responds again.", "ACTIVE"]


async def test_a_long_outage_of_the_api_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.watch.UNREACHABLE_S", 0.0)
    with pytest.raises(Unreachable):
        await wait_until_up(cast("ApiClient", Script(*[AWAY] * 100)), "f", "v", lambda _: None)


async def test_an_undeploy_meanwhile_ends_the_wait() -> None:
    api = Script(function("DEPLOYING"), UP, function("INACTIVE"), ApiError(404, "not deployed"))
    with pytest.raises(CommandError, match="no longer deployed"):
        await wait_until_up(cast("ApiClient", api), "f", "v", lambda _: None)


async def test_a_removed_deployment_is_gone_once_no_instance_is_left() -> None:
    missing = ApiError(404, "not deployed")
    api = Script(
        *(function("INACTIVE", a="RUNNING"), UP),
        *(function("INACTIVE", a="RUNNING"), missing),
        *(function("INACTIVE"), missing),
    )
    said: list[str] = []
    await wait_until_gone(cast("ApiClient", api), "f", "v", said.append)
    assert said == ["instance a RUNNING (A10G)", "INACTIVE", "instance a gone"]
