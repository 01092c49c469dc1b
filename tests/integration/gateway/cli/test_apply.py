"""``gateway apply`` with the real API: the test decides what happens to instances."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import Instance
from runtime.tasks import spawn
from tests.integration.gateway.cli.shell import Ran, Shell
from tests.support.control import ControlPlane
from tests.support.idle_backend import Fleet
from tests.support.waiting import PATIENCE_S

FUNCTION = """
name: chat
containerImage: {image}
inferenceUrl: /v1/chat/completions
tags: [team:a]
containerEnvironment: [{{key: A, value: "1"}}]
secrets: [{{name: token, fromEnv: TOKEN}}]
deploymentSpecifications:
  - {{gpu: A10G, minInstances: {least}, maxInstances: 4}}
"""
IDLE = """
name: {name}
containerImage: img:1
inferenceUrl: /v1
"""


def chat(image: str = "img:1", least: int = 0) -> str:
    return FUNCTION.format(image=image, least=least)


class Applied:
    """Applies one text after the other."""

    def __init__(self, shell: Shell, folder: Path) -> None:
        self.shell = shell
        self.file = folder / "functions.yaml"

    async def __call__(self, text: str, *options: str, token: str = "hunter2") -> Ran:
        await asyncio.to_thread(self.file.write_text, text)
        ran = await self.shell.run("apply", "-f", str(self.file), *options, TOKEN=token)
        assert "hunter" not in ran.out + ran.err
        return ran

    async def versions(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = await self.shell.json("functions", "list")
        return listed


@pytest.fixture
def applied(shell: Shell, tmp_path: Path) -> Applied:
    return Applied(shell, tmp_path)


async def test_a_file_is_applied_once_and_again_without_a_change(
    applied: Applied, fleet: Fleet
) -> None:
    text = chat() + "---" + IDLE.format(name="other")
    planned = await applied(text, "--dry-run", "--diff")
    assert planned.code == 3
    assert 'chat:     + containerImage: "img:1"' in planned.out
    assert await applied.versions() == []
    first = await applied(text)
    assert first.code == 0, first
    made = {version["name"]: version for version in await applied.versions()}
    assert made["chat"]["status"] == "ACTIVE"
    assert made["other"]["status"] == "INACTIVE"
    assert made["chat"]["tags"][:2] == ["team:a", "gateway-apply:default"]
    again = await applied(text, "--dry-run", "--prune")
    assert (again.code, again.out) == (0, "chat: unchanged\nother: unchanged\n")
    unchanged = await applied(text, "--prune", "--wait", "--json")
    assert [result["status"] for result in json.loads(unchanged.out)] == ["unchanged"] * 2
    assert {version["name"]: version for version in await applied.versions()} == made


async def test_numbers_and_metadata_change_in_place_and_the_rest_in_a_new_version(
    applied: Applied, fleet: Fleet
) -> None:
    await applied(chat())
    (first,) = await applied.versions()
    changed = await applied(
        chat().replace("maxInstances: 4", "maxInstances: 9").replace("team:a", "team:b"), "--diff"
    )
    assert "deploymentSpecifications.0.maxInstances: 4 -> 9" in changed.out
    assert '"team:b"' in changed.out
    (still,) = await applied.versions()
    assert still["versionId"] == first["versionId"]
    shown = await applied.shell.json("deployments", "show", first["id"])
    assert shown["deploymentSpecifications"][0]["maxInstances"] == 9

    for text, token in ((chat("img:2"), "hunter2"), (chat("img:2"), "hunter3")):
        replaced = await applied(text, "--wait", "--prune", token=token)
        assert replaced.code == 0, replaced
        (current,) = await applied.versions()
        assert (current["id"], current["status"]) == (first["id"], "ACTIVE")
        assert current["versionId"] != still["versionId"]
        still = current


async def test_an_old_version_serves_until_the_new_one_does(
    applied: Applied, fleet: Fleet, plane: ControlPlane
) -> None:
    await applied(chat())
    (old,) = await applied.versions()
    late = await applied(chat("img:2", least=1), "--timeout", "1")
    assert late.code == 1
    assert "is not ACTIVE after 1 s; the same command goes on from here" in late.err
    by_image = {version["containerImage"]: version for version in await applied.versions()}
    new = by_image["img:2"]["versionId"]
    assert (by_image["img:1"]["status"], by_image["img:2"]["status"]) == ("ACTIVE", "DEPLOYING")
    async with asyncio.timeout(PATIENCE_S):
        going_on = spawn(applied(chat("img:2", least=1)), "apply")
        await plane.catalog.until(lambda: plane.catalog.instances(new))
        (instance,) = plane.catalog.instances(new)
        await fleet.joins(new, instance.instance_id)
        ran = await going_on
    assert ran.code == 0, ran
    by_image = {version["containerImage"]: version for version in await applied.versions()}
    assert (by_image["img:1"]["status"], by_image["img:2"]["status"]) == ("INACTIVE", "ACTIVE")
    assert by_image["img:1"]["versionId"] == old["versionId"]


async def test_a_failed_start_is_told_with_its_reason_and_keeps_everything_that_serves(
    applied: Applied, fleet: Fleet, plane: ControlPlane
) -> None:
    await applied(chat() + "---" + IDLE.format(name="old"))
    (first,) = [version["id"] for version in await applied.versions() if version["name"] == "chat"]

    def starting() -> list[Instance]:
        own = [one for one in plane.catalog.deployments() if one.function_id == first]
        return [one for each in own for one in plane.catalog.instances(each.version_id)]

    async with asyncio.timeout(PATIENCE_S):
        running = spawn(applied(chat("img:2", least=1), "--prune"), "apply")
        await plane.catalog.until(starting)
        (instance,) = starting()
        fleet.backend.can_never_run(instance.instance_id, "no such image\nmore")
        ran = await running
    assert ran.code == 1
    assert "chat: The deployment failed: no such image" in ran.err
    statuses = {
        version["containerImage"]: version["status"]
        for version in await applied.versions()
        if version["name"] == "chat"
    }
    assert statuses == {"img:1": "ACTIVE", "img:2": "ERROR"}
    assert "old" in {version["name"] for version in await applied.versions()}


async def test_prune_removes_what_the_set_made_and_nothing_else(
    applied: Applied, fleet: Fleet, shell: Shell
) -> None:
    image = ("--image", "img:1", "--inference-url", "/v1")
    await shell.json("functions", "create", "--name", "by-hand", *image)
    await applied(IDLE.format(name="theirs"), "--set", "theirs")
    await applied(chat() + "---" + IDLE.format(name="two"))
    kept = await applied(IDLE.format(name="two"))
    assert "chat is of the set and not in the files: --prune deletes it." in kept.err
    assert len(await applied.versions()) == 4
    pruned = await applied(IDLE.format(name="two"), "--prune")
    assert pruned.code == 0, pruned
    assert {version["name"] for version in await applied.versions()} == {"by-hand", "theirs", "two"}
    refused = await applied(IDLE.format(name="by-hand"))
    assert refused.code == 1
    assert "not of the set default" in refused.err


async def test_files_folders_and_standard_input_are_one_set(
    shell: Shell, fleet: Fleet, tmp_path: Path
) -> None:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "a.yaml").write_text(IDLE.format(name="a"))
    (folder / "b.json").write_text('{"name": "b", "containerImage": "i", "inferenceUrl": "/"}')
    (folder / "notes.txt").write_text("not yaml: [")
    files = ("-f", str(folder), "-f", "-")
    ran = await shell.run("apply", *files, stdin=IDLE.format(name="c"))
    assert ran.code == 0, ran
    assert {version["name"] for version in await shell.json("functions", "list")} == set("abc")
    twice = await shell.run("apply", *files, stdin=IDLE.format(name="a"))
    assert twice.code == 2
    assert f"-:2: name: a is at {folder}/a.yaml:2 too" in twice.err


async def test_nothing_is_done_when_a_file_is_wrong(applied: Applied, shell: Shell) -> None:
    wrong = await applied(IDLE.format(name="good") + "---\nname: bad\ncontainerImages: x\n")
    assert wrong.code == 2
    assert (
        f"{applied.file}:7: containerImages: there is no such member; is it containerImage?"
        in wrong.err
    )
    assert (await applied("# empty\n", "--prune")).code == 2
    assert (await applied(chat(), "--set", "a:b")).code == 2
    assert (await shell.run("apply", "-f", "/nowhere.yaml")).code == 2
    assert await applied.versions() == []
