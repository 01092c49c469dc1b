"""``gateway apply`` against the whole system: the example of docs/apply.md, as a reader runs it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from runtime.tasks import spawn
from tests.support.dev import CliRun, Dev, run_cli, start_dev
from tests.support.waiting import PATIENCE_S, until

PAGE = Path(__file__).parents[2] / "docs" / "apply.md"
GPU_SPEC = re.compile(r"deploymentSpecifications:\n.*\n")


@asynccontextmanager
async def called_all_the_time(dev: Dev, name: str) -> AsyncIterator[list[int]]:
    """Call a function while the block runs; the list gets the statuses of the responses."""
    statuses: list[int] = []
    is_over = asyncio.Event()
    headers = {"authorization": f"Bearer {dev.ready['api_key']}"}
    url = f"{dev.ready['api_url']}/f/{name}/echo"

    async def call_on() -> None:
        async with httpx.AsyncClient(headers=headers, timeout=PATIENCE_S) as client:
            while not is_over.is_set():
                statuses.append((await client.post(url, content=b"hello")).status_code)

    callers = [spawn(call_on(), "caller") for _ in range(4)]
    await until(lambda: len(statuses) > 10)
    yield statuses
    is_over.set()
    await asyncio.gather(*callers)


async def running_slots(dev: Dev, name: str) -> list[int]:
    """Return the requests at a time of each instance that can serve now."""
    shown = await run_cli(dev, "instances", name, "--json")
    return [one["slots"] for one in json.loads(shown.out) if one["healthy"]]


@pytest.fixture
def own_dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dev]:
    monkeypatch.setenv("GREETER_TOKEN", "hunter2")
    running = start_dev(tmp_path)
    yield running
    assert running.program.stop() == 0


@pytest.mark.timeout(180)
async def test_the_example_is_applied_changed_under_load_and_pruned(
    own_dev: Dev, tmp_path: Path
) -> None:
    file = tmp_path / "functions.yaml"
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    async def apply(text: str, *options: str) -> CliRun:
        await asyncio.to_thread(file.write_text, text)
        ran = await run_cli(own_dev, "apply", "-f", str(file), *options)
        assert "hunter2" not in ran.out + ran.err
        return ran

    assert (await apply(example, "--dry-run", "--diff")).code == 3
    first = await apply(example, "--wait")
    assert first.code == 0, first
    assert "greeter: ACTIVE" in first.err
    greeting = await run_cli(own_dev, "invoke", "greeter", "-d", "hello")
    assert (greeting.code, greeting.out) == (0, "hello")
    again = await apply(example, "--dry-run", "--prune")
    assert (again.code, again.out) == (0, "greeter: unchanged\nsleeper: unchanged\n")

    example = example.replace(
        "minInstances: 1, maxInstances: 2, maxRequestConcurrency: 8",
        "minInstances: 2, maxInstances: 2, maxRequestConcurrency: 4",
    )
    scaled = await apply(example, "--wait")
    assert "greeter: scaled version" in scaled.err
    assert await running_slots(own_dev, "greeter") == [4, 4]

    async with called_all_the_time(own_dev, "greeter") as statuses:
        changed = example.replace("value: hello", "value: goodbye")
        assert (
            '~ containerEnvironment.GREETING: "hello" -> "goodbye"'
            in (await apply(changed, "--dry-run", "--diff")).out
        )
        replaced = await apply(changed, "--wait", "--prune")
        assert replaced.code == 0, replaced
        assert "greeter: deleted version" in replaced.err
        served = len(statuses)
        await until(lambda: len(statuses) > served + 10)
    assert set(statuses) == {200}

    undeployed = await apply(GPU_SPEC.sub("", changed), "--wait")
    assert undeployed.code == 0, undeployed
    listed = await run_cli(own_dev, "functions", "list", "greeter")
    assert "INACTIVE" in listed.out
    only_sleeper = changed.partition("---\n")[2]
    assert (await apply(only_sleeper, "--prune")).code == 0
    listed = await run_cli(own_dev, "functions", "list")
    assert "sleeper" in listed.out
    assert "greeter" not in listed.out
    assert "demo" in listed.out
