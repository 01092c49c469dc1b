"""A function's life, from the command line: registered, deployed, called, scaled, taken down.

Everything runs as processes, and what is killed is killed by SIGKILL. What a caller may rely on is
that a change is visible, to the API and to invocations, within a second.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.api.identity import SERVICE_ID
from runtime.tasks import spawn
from tests.support.dev import start_dev
from tests.support.live_functions import (
    SOON_S,
    Live,
    Version,
    deployed,
    inference_command,
    registered,
    until,
)
from tests.support.programs import descendants, wait_gone
from tests.support.waiting import PATIENCE_S

OLD_SDK = {"x-sideko-sdk-language": "Python"}
CALLERS = 12


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    running = start_dev(
        folder,
        *("--data-dir", str(folder / "data"), "--grace", "3"),
        *("--inference-command", inference_command(folder)),
        env={"GATEWAY_PROVISION__IDLE_S": "0.5"},
    )
    yield Live(running.program.pid, running.ready, folder)
    family = descendants(running.program.pid)
    assert running.program.stop() == 0
    wait_gone(list(family))


async def version_that_answers(client: httpx.AsyncClient, **headers: str) -> str:
    """Make a call; return the version that the inference server was told it is."""
    answer = await client.get("/reflect", headers=headers)
    assert answer.status_code == 200, answer.text
    return str(dict(answer.json()["headers"])["nvcf-function-version-id"])


@asynccontextmanager
async def busy(version: Version) -> AsyncIterator[str]:
    """Occupy the one slot of a version's worker; return the request's id."""
    events = "/sse?events=100000&interval_ms=20"
    async with version.client.stream("GET", events, headers=version.headers) as answer:
        assert answer.status_code == 200
        yield answer.headers["nvcf-reqid"]


async def test_two_versions_are_registered_deployed_and_called_through_the_function(
    live: Live,
) -> None:
    async with registered(live, 2) as versions, live.client() as client:
        first, second = versions
        function = {"function-id": first.function_id}
        refused = await client.get("/reflect", headers=function)
        assert (refused.status_code, refused.json()["functionStatus"]) == (404, "INACTIVE")
        told = await asyncio.gather(
            *(
                live.cli("deployments", "create", *one.names, "--gpu", "CPU", "--watch")
                for one in versions
            )
        )
        for text in told:
            lines = text.splitlines()
            assert lines.index("DEPLOYING") < lines.index("ACTIVE")
            assert any(re.fullmatch(r"instance \S+ RUNNING \(CPU\)", line) for line in lines)
        answering = set()
        for _ in range(64):
            answering.add(await version_that_answers(client, **function))
        assert answering == {first.version_id, second.version_id}
        for one in versions:
            assert await version_that_answers(client, **one.headers) == one.version_id
        listed = await live.cli_json("functions", "list", first.function_id)
        assert [one["status"] for one in listed] == ["ACTIVE", "ACTIVE"]
        shown = await live.cli_json("functions", "show", *first.names)
        (running,) = live.instances(first.version_id)
        assert [one["instanceId"] for one in shown["activeInstances"]] == [running.instance_id]
        again = await live.cli("deployments", "create", *first.names, "--gpu", "CPU", code=1)
        assert "400" in again


async def test_requests_behind_a_full_worker_have_a_place_in_line(live: Live) -> None:
    async with deployed(live) as (version,), live.client(**version.headers) as client:
        async with busy(version) as running_id:
            calls = [spawn(client.post("/echo", content=b"x"), "call") for _ in range(3)]
            await until(version.depth, lambda depth: depth == 3)
            (queue,) = await live.cli_json("queues", "show", version.function_id)
            assert (queue["queueDepth"], queue["functionVersionId"]) == (3, version.version_id)
            waiting = sorted(await live.queued(version.version_id) - {running_id})
            told = await asyncio.gather(
                *(live.cli("queues", "position", one) for one in [*waiting, running_id])
            )
            assert sorted(told[:3]) == ["1\n", "2\n", "3\n"]
            assert told[3] == "0\n"
        assert [(await call).status_code for call in calls] == [200] * 3
        await until(version.depth, lambda depth: depth == 0)
        assert "404" in await live.cli("queues", "position", running_id, code=1)


async def test_it_scales_to_nothing_and_back_while_the_request_waits(live: Live) -> None:
    async with deployed(live) as (version,), live.client(**version.headers) as client:
        assert (await client.post("/echo", content=b"x")).status_code == 200
        (before,) = live.instances(version.version_id)
        await live.cli("deployments", "update", *version.names, "--min", "0", "--watch")
        await until(version.show, lambda seen: not seen.get("activeInstances"))
        await asyncio.to_thread(wait_gone, [before.inference_pid, before.agent_pid])
        assert await version.status() == "ACTIVE"
        answer = await client.post("/echo", content=b"woken")
        assert (answer.status_code, answer.content) == (200, b"woken")
        (after,) = live.instances(version.version_id)
        assert after.instance_id != before.instance_id
        assert await version.status() == "ACTIVE"


async def test_what_was_taken_down_can_be_deployed_again(live: Live) -> None:
    accounts = live.folder / "data" / "nats-logins" / "accounts"

    async def known() -> set[str]:
        return {file.name for file in accounts.iterdir()}

    async with registered(live) as (version,), live.client(**version.headers) as client:
        before = await known()
        for _ in range(3):
            spec = ("--gpu", "CPU", "--concurrency", "1", "--watch")
            await live.cli("deployments", "create", *version.names, *spec)
            assert (await client.post("/echo", content=b"x")).status_code == 200
            assert await known() > before
            await live.cli("deployments", "remove", *version.names)
            # The last that goes is what let its workers in.
            await until(known, lambda seen: seen == before)


async def test_an_instance_that_may_go_does_not_go_while_it_serves(live: Live) -> None:
    async with deployed(live) as (version,), live.client(**version.headers) as client:
        await live.cli("deployments", "update", *version.names, "--min", "0")
        await until(version.show, lambda seen: not seen.get("activeInstances"))
        # Longer than it may be idle, and than a stop would wait for it.
        async with client.stream("GET", "/sse?events=300&interval_ms=20") as answer:
            lines = [line async for line in answer.aiter_lines() if line.startswith("data:")]
        assert len(lines) >= 300
        await until(version.show, lambda seen: not seen.get("activeInstances"))


async def test_a_call_behind_a_full_worker_gets_a_second_instance_if_there_may_be_one(
    live: Live,
) -> None:
    async with deployed(live) as (version,), live.client(**version.headers) as client:
        await live.cli("deployments", "update", *version.names, "--max", "2")
        async with busy(version):
            answer = await client.post("/echo", content=b"x")
            assert (answer.status_code, answer.content) == (200, b"x")
            assert len(live.instances(version.version_id)) == 2


async def test_a_running_worker_follows_another_concurrency(live: Live) -> None:
    async with deployed(live) as (version,), live.client(**version.headers) as client:
        before = live.instances(version.version_id)
        async with busy(version):
            call = spawn(client.post("/echo", content=b"x"), "call")
            await until(version.depth, lambda depth: depth == 1)
            await live.cli("deployments", "update", *version.names, "--concurrency", "2")
            began = time.monotonic()
            assert (await call).status_code == 200
            # With the next heartbeat, of which there are three in a lease of 15 s.
            assert time.monotonic() - began < 5 + SOON_S
        assert live.instances(version.version_id) == before
        assert await version.status() == "ACTIVE"


async def test_a_graceful_undeploy_under_load_fails_no_call(live: Live) -> None:
    async with deployed(live, count=2, concurrency=2) as (leaving, staying):
        async with live.client() as client:
            function = {"function-id": leaving.function_id}
            is_over = asyncio.Event()
            answers: list[httpx.Response] = []

            async def keep_calling() -> None:
                while not is_over.is_set():
                    answers.append(await client.get("/slow?seconds=0.05", headers=function))

            callers = [spawn(keep_calling(), "caller") for _ in range(CALLERS)]
            named = [
                spawn(client.get("/slow?seconds=0.2", headers=leaving.headers), "named")
                for _ in range(CALLERS)
            ]
            await until(leaving.depth, lambda depth: depth >= CALLERS // 2)
            told = await live.cli("deployments", "remove", *leaving.names, "--graceful", "--watch")
            assert "gone" in told
            already = len(answers)
            await until(lambda: len(answers), lambda count: count >= already + 2 * CALLERS)
            is_over.set()
            await asyncio.gather(*callers)
            answers += await asyncio.gather(*named)
            failed = [answer.text for answer in answers if answer.status_code != 200]
            assert not failed, f"{len(failed)} of {len(answers)}: {failed[:3]}"
            assert live.instances(leaving.version_id) == []
            assert (await client.get("/slow", headers=leaving.headers)).status_code == 404
            assert (await client.get(leaving.deployment)).status_code == 404
            assert await staying.status() == "ACTIVE"


async def test_an_undeploy_without_grace_ends_what_waits_at_once(live: Live) -> None:
    async with deployed(live) as (version,), live.client(**version.headers) as client:
        async with busy(version):
            calls = [spawn(client.post("/echo", content=b"x"), "call") for _ in range(3)]
            await until(version.depth, lambda depth: depth == 3)
            removing = spawn(live.cli("deployments", "remove", *version.names), "remove")
            await version.becomes("INACTIVE", PATIENCE_S)
            began = time.monotonic()
            answers = await asyncio.gather(*calls)
            assert time.monotonic() - began < SOON_S
            assert [answer.status_code for answer in answers] == [503] * 3
            assert "undeployed" in answers[0].json()["detail"]
            assert "undeployed" in await removing
        refused = await client.post("/echo", content=b"x")
        assert (refused.status_code, refused.json()["functionStatus"]) == (404, "INACTIVE")


@pytest.mark.parametrize("which", ["agent", "inference"])
async def test_a_killed_instance_is_degraded_until_the_next_one_serves(
    live: Live, which: str
) -> None:
    async with deployed(live) as (version,), live.client(**version.headers) as client:
        (before,) = live.instances(version.version_id)
        held_down = version.hold_down()
        before.kill(which)
        await version.becomes("DEGRADED", SOON_S)
        waiting = spawn(client.post("/echo", content=b"x"), "call")
        await until(version.depth, lambda depth: depth == 1)
        shown = await live.cli("deployments", "show", *version.names)
        assert "DEGRADED" in shown
        assert "the inference server ended" in shown or "the worker agent ended" in shown
        held_down.unlink()

        async def is_back() -> bool:
            found = live.instances(version.version_id)
            return len(found) == 1 and await found[0].is_healthy()

        await until(is_back)
        await version.becomes("ACTIVE", SOON_S)
        assert (await waiting).status_code == 200
        (after,) = live.instances(version.version_id)
        assert after.instance_id == before.instance_id
        assert {after.agent_pid, after.inference_pid}.isdisjoint(
            {before.agent_pid, before.inference_pid}
        )


async def test_old_sdks_are_told_states_that_they_know(live: Live) -> None:
    async with deployed(live, "--min", "2", "--max", "2") as (version,):
        async with live.client(**version.headers) as client:
            for state, told, status in (
                ("DEGRADING", "ACTIVE", 200),
                ("DEGRADED", "DEPLOYING", 504),
            ):
                version.hold_down()
                live.instances(version.version_id)[0].kill("inference")
                await version.becomes(state, SOON_S)
                seen = await version.show(**OLD_SDK)
                assert (seen["status"], seen["statusDetail"]) == (told, state)
                words = {one.get("instanceStatus") for one in seen.get("activeInstances", ())}
                assert words <= {"ACTIVE", None}
                deployment = await version.client.get(version.deployment, headers=OLD_SDK)
                assert deployment.json()["deployment"]["functionStatus"] == told
                assert "statusDetail" not in await version.show()
                answer = await client.post("/echo", headers={"nvcf-poll-seconds": "1"})
                assert answer.status_code == status


async def test_a_revoked_key_is_refused_by_api_and_invocations_within_a_second(live: Live) -> None:
    policy = {
        "aud": SERVICE_ID,
        "scopes": ["list_functions", "invoke_function"],
        "resources": [{"type": "account-functions", "id": "*"}],
    }
    body = {"description": "e2e", "authorizations": {"policies": [policy]}}
    async with live.client() as owner:
        key = (await owner.post("/v1/keys", json=body)).json()
        function = {"function-id": str(live.ready["function_id"])}
        async with live.client(key["value"]) as client:

            async def statuses() -> tuple[int, int]:
                listed = await client.get("/v2/nvcf/functions")
                invoked = await client.post("/echo", headers=function, content=b"x")
                return listed.status_code, invoked.status_code

            await until(statuses, lambda seen: seen == (200, 200), timeout_s=SOON_S)
            assert (await owner.delete(f"/v1/keys/{key['id']}")).status_code == 204
            await until(statuses, lambda seen: seen == (401, 401), timeout_s=SOON_S)


async def test_a_key_made_by_the_command_invokes_until_the_command_revokes_it(live: Live) -> None:
    function_id = str(live.ready["function_id"])
    key = await live.cli_json("keys", "create", "--function", function_id, "--expires-in", "1h")
    async with live.client(key["key"]) as client:

        async def status() -> int:
            named = {"function-id": function_id}
            return (await client.post("/echo", headers=named, content=b"x")).status_code

        await until(status, lambda seen: seen == 200, timeout_s=SOON_S)
        assert key["id"] in await live.cli("keys", "list")
        revoked = await live.cli_json("keys", "revoke", key["id"])
        assert revoked["status"] == "revoked"
        await until(status, lambda seen: seen == 401, timeout_s=SOON_S)
        assert key["id"] not in await live.cli("keys", "list")


VICTIMS = {
    "dev": " gateway dev ",
    "gateway": "gateway serve",
    "nats-server": "nats-server",
}


@pytest.mark.parametrize("victim", VICTIMS)
async def test_whatever_is_killed_nothing_is_left_behind(tmp_path: Path, victim: str) -> None:
    dev = start_dev(tmp_path, "--data-dir", str(tmp_path / "data"), "--grace", "1")
    try:
        family = {dev.program.pid: " gateway dev ", **descendants(dev.program.pid)}
        assert len(family) == 5, family
        (pid,) = [one for one, line in family.items() if VICTIMS[victim] in line]
        # With a long answer under way, which nobody waits for once the rest has to end.
        async with dev.client() as client, client.stream("GET", "/sse?events=10000") as answer:
            assert answer.status_code == 200
            os.kill(pid, signal.SIGKILL)
            code = await asyncio.to_thread(dev.program.wait_end)
        assert code == (-signal.SIGKILL if victim == "dev" else 1)
        await asyncio.to_thread(wait_gone, list(family))
    finally:
        dev.program.stop()
