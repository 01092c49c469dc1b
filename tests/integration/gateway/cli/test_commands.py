"""``gateway functions|deployments|queues``, with tables and with JSON."""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from gateway.domain.queued_request import QueuedRequest
from tests.integration.gateway.cli.shell import Shell
from tests.support.control import Client, ControlPlane, SetQueue
from tests.support.idle_backend import Fleet
from tests.support.programs import Program, gateway

T = TypeVar("T")
IMAGE = ["--name", "echo", "--image", "img:1", "--inference-url", "/echo"]


async def create(shell: Shell, *options: str) -> tuple[str, str]:
    made = await shell.json("functions", "create", *IMAGE, *options)
    return made["id"], made["versionId"]


async def test_a_function_is_created_shown_updated_listed_and_deleted(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    made = await shell.json(
        *("functions", "create", *IMAGE, "--env", "A=b=c", "--secret", f"token={tmp_path}/token"),
        *("--tag", "one", "--tag", "two", "--inference-port", "9000", "--max-body-bytes", "5000"),
    )
    ids = made["id"], made["versionId"]
    assert made["status"] == "INACTIVE"
    assert made["containerEnvironment"] == [{"key": "A", "value": "b=c"}]
    assert made["secrets"] == ["token"]
    second = await shell.json(
        *("functions", "version", ids[0], *IMAGE, "--no-allow-rerun", "--pass-interim"),
        *("--cors-origin", "https://a.example", "--cors-credentials"),
    )
    assert second["cors"] == {"origins": ["https://a.example"], "credentials": True}
    assert (second["id"], second["allowRerun"], second["passInterim"]) == (ids[0], False, True)
    changed = await shell.json(
        *("functions", "update", *ids, "--tag", "new", "--rate-limit", "5-S"),
        *("--cors-origin", "https://a.example", "--cors-origin", "https://b.example"),
    )
    assert (changed["tags"], changed["rateLimit"]) == (["new"], {"rateLimit": "5-S"})
    origins = ["https://a.example", "https://b.example"]
    assert changed["cors"] == {"origins": origins, "credentials": False}
    shown = await shell.json("functions", "show", *ids)
    assert (shown["inferencePort"], shown["maxBodyBytes"]) == (9000, 5000)
    listed = await shell.json("functions", "list", ids[0])
    assert [version["versionId"] for version in listed] == [ids[1], second["versionId"]]
    assert len(await shell.json("functions", "list", "--visibility", "private")) == 2
    assert len(await shell.json("functions", "list", "--limit", "1")) == 1
    assert (await shell.run("functions", "delete", *ids)).code == 0
    assert len(await shell.json("functions", "list", ids[0])) == 1


async def test_a_rate_limit_is_given_and_taken_away(shell: Shell) -> None:
    made = await shell.json("functions", "create", *IMAGE, "--rate-limit", "5-S,9-M")
    assert made["rateLimit"] == {"rateLimit": "5-S,9-M"}
    more = await shell.json("functions", "version", made["id"], *IMAGE, "--rate-limit", "7-H")
    assert more["rateLimit"] == {"rateLimit": "7-H"}
    ids = made["id"], made["versionId"]
    kept = await shell.json("functions", "update", *ids, "--tag", "a")
    assert kept["rateLimit"] == {"rateLimit": "5-S,9-M"}
    for argument in ("--no-rate-limit", "--tag=b"):
        assert "rateLimit" not in await shell.json("functions", "update", *ids, argument)
    assert "rate limit" not in (await shell.run("functions", "show", *ids)).out


@pytest.mark.parametrize(
    ("limit", "lines"),
    [
        ({"rateLimit": "5-S"}, ["5-S"]),
        ({"perUserRate": "2-S"}, ["2-S for each caller"]),
        (
            {
                "rateLimit": "5-S",
                "perNcaIdRate": {"acme": "9-S"},
                "exemptedNcaIds": ["one", "two"],
                "perUserRate": "2-S",
                "syncCheck": True,
            },
            [
                "5-S",
                "9-S for account acme",
                "none for one two",
                "2-S for each caller",
                "counted with all gateway processes before each call",
            ],
        ),
    ],
)
async def test_every_member_of_a_rate_limit_is_shown(
    shell: Shell, tmp_path: Path, limit: dict[str, object], lines: list[str]
) -> None:
    (tmp_path / "limit").write_text(json.dumps({"rateLimit": limit}))
    made = await shell.run("functions", "create", *IMAGE, "--file", f"{tmp_path}/limit")
    shown = made.out[made.out.index("rate limit ") :].removeprefix("rate limit ")
    assert [line.strip() for line in shown.splitlines()] == lines


async def test_a_list_longer_than_a_page_is_complete(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.api_client.PAGE", 2)
    made = [await create(shell) for _ in range(5)]
    listed = await shell.json("functions", "list", "--visibility", "private")
    assert [(version["id"], version["versionId"]) for version in listed] == made
    assert len(await shell.json("functions", "list", "--limit", "3")) == 3


async def test_table_rows_have_complete_ids_in_one_line(shell: Shell) -> None:
    ids = await create(shell)
    for arguments, shown in (((ids[0],), ids[1]), ((), ids[0])):
        out = (await shell.run("functions", "list", *arguments)).out
        (line,) = [line for line in out.splitlines() if shown in line]
        assert "INACTIVE" in line
    await shell.run("deployments", "create", *ids, "--gpu", "A10G")
    shown = await shell.run("deployments", "show", *ids)
    assert "A10G" in shown.out
    assert "DEPLOYING" in shown.out


async def test_tables_fit_100_columns(shell: Shell, fleet: Fleet, plane: ControlPlane) -> None:
    name = "n" * 128
    made = await shell.json("functions", "create", "--name", name, *IMAGE[2:])
    await shell.json("deployments", "create", name, "--gpu", "A10G", "--concurrency", "16384")
    await plane.catalog.until(lambda: plane.catalog.instances(made["versionId"]))
    for command in (
        ["functions", "list"],
        ["functions", "list", name],
        ["deployments", "show", name],
        ["instances"],
        ["instances", name],
        ["queues", "show", name],
        ["gpus"],
    ):
        ran = await shell.run(*command)
        assert ran.code == 0, ran
        # A member's value, such as a name, takes one line however long it is.
        lines = [line.rstrip() for line in ran.out.splitlines() if not line.startswith("name ")]
        assert max(len(line) for line in lines) <= 100, ran.out


async def test_the_instances_of_all_functions_are_listed_with_their_names(
    shell: Shell, fleet: Fleet, plane: ControlPlane
) -> None:
    made = {}
    for name in ("chat", "embed"):
        version = await shell.json("functions", "create", "--name", name, *IMAGE[2:])
        await shell.json("deployments", "create", name, "--gpu", "A10G")
        await plane.catalog.until(partial(plane.catalog.instances, version["versionId"]))
        (instance,) = plane.catalog.instances(version["versionId"])
        made[name] = [name, instance.instance_id, version["versionId"], "STARTING"]
    listed = (await shell.run("instances")).out.splitlines()
    assert listed[0].split() == ["NAME", "INSTANCE", "VERSION", "STATUS"]
    assert [line.split() for line in listed[1:]] == [made["chat"], made["embed"]]


async def test_functions_and_versions_are_called_by_name(shell: Shell) -> None:
    name = f"fn-{uuid4().hex}"
    first = await shell.json("functions", "create", "--name", name, *IMAGE[2:])
    shown = await shell.run("functions", "show", name)
    url = f"http://{first['id']}.invocation.localhost:{shell.url.rpartition(':')[2]}/echo"
    assert url in shown.out
    second = await shell.json("functions", "version", name, "--name", "v2", *IMAGE[2:])
    assert second["id"] == first["id"]
    for function, own_name in ((name, name), (first["id"], "v2")):
        unnamed = await shell.json("functions", "version", function, *IMAGE[2:])
        assert (unnamed["id"], unnamed["name"]) == (first["id"], own_name)
        assert (await shell.run("functions", "delete", name, unnamed["versionId"])).code == 0
    assert (await shell.json("functions", "show", name))["versionId"] == second["versionId"]
    assert (await shell.json("functions", "show", name, name))["versionId"] == first["versionId"]
    assert (await shell.json("functions", "show", "v2", "v2"))["versionId"] == second["versionId"]
    deployed = await shell.json("deployments", "create", name, name, "--gpu", "A10G", "--min", "0")
    assert deployed["functionVersionId"] == first["versionId"]
    again = await shell.run("deployments", "create", name, name, "--gpu", "A10G")
    assert "already deployed: change its deployment with 'gateway deployments update'" in again.err
    shown = await shell.json("deployments", "show", name)
    assert shown["functionVersionId"] == first["versionId"]
    (queue,) = await shell.json("queues", "show", name)
    assert queue["functionVersionId"] == first["versionId"]
    assert (await shell.run("deployments", "remove", name)).code == 0
    unclear = await shell.run("functions", "delete", name)
    assert unclear.code == 1
    assert f"has 2 versions: give one of {second['versionId']}, {first['versionId']}" in unclear.err
    assert (await shell.run("functions", "delete", name, "v2")).code == 0
    assert (await shell.run("functions", "delete", name)).code == 0
    gone = await shell.run("functions", "show", name)
    assert (gone.code, gone.err.count("\n")) == (1, 1)
    assert f"There is no function called {name}" in gone.err


async def test_a_grpc_function_is_shown_and_not_invoked_over_http(shell: Shell) -> None:
    name = f"fn-{uuid4().hex}"
    options = ("--name", name, "--image", "img:1", "--inference-url", "/grpc")
    made = await shell.json("functions", "create", *options)
    assert "gRPC :8000 " in (await shell.run("functions", "show", name)).out
    address = shell.url.removeprefix("http://")
    for version in ((), ("--function-version", made["versionId"])):
        ran = await shell.run("invoke", name, "/some.Service/Method", *version, "-d", "{}")
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert f"{name} is a gRPC function: call it with a gRPC client" in ran.err
        assert f"-H 'function-id: {made['id']}'" in ran.err
        assert ran.err.endswith(f" {address} list\n")
        assert shell.env["GATEWAY_API_KEY"] not in ran.err


async def test_a_name_that_two_functions_have_is_not_guessed(shell: Shell) -> None:
    name = f"fn-{uuid4().hex}"
    made = [await shell.json("functions", "create", "--name", name, *IMAGE[2:]) for _ in range(2)]
    ran = await shell.run("functions", "show", name)
    assert ran.code == 1
    assert f"Several functions are called {name}: give one of" in ran.err
    assert all(one["id"] in ran.err for one in made)


async def test_a_failed_deployment_is_replaced_and_its_logs_are_its_reasons(
    shell: Shell, fleet: Fleet, plane: ControlPlane, tmp_path: Path
) -> None:
    ids = await create(shell)
    await shell.json("deployments", "create", *ids, "--gpu", "A10G")
    await plane.catalog.until(lambda: plane.catalog.instances(ids[1]))
    (instance,) = plane.catalog.instances(ids[1])
    fleet.backend.can_never_run(instance.instance_id, "no such image\nsecond line")
    await plane.catalog.until(lambda: state_of(plane, ids) == "ERROR")
    await plane.catalog.until(lambda: not plane.catalog.instances(ids[1]))
    logs = await shell.run("logs", *ids, "--folder", str(tmp_path))
    assert logs.code == 1
    assert f"instance {instance.instance_id} failed: no such image\nsecond line\n" in logs.err
    again = await shell.json("deployments", "create", *ids, "--gpu", "A10G")
    assert again["functionStatus"] == "DEPLOYING"


async def test_logs_are_read_where_the_instance_is_local(
    shell: Shell, fleet: Fleet, plane: ControlPlane, tmp_path: Path
) -> None:
    ids = await create(shell)
    await shell.json("deployments", "create", *ids, "--gpu", "A10G")
    await plane.catalog.until(lambda: plane.catalog.instances(ids[1]))
    (instance,) = plane.catalog.instances(ids[1])
    command = ("logs", *ids, "--folder", str(tmp_path))
    elsewhere = await shell.run(*command)
    assert (elsewhere.code, elsewhere.out) == (1, "")
    assert f"runs in backend {instance.backend} and has no logs in {tmp_path}" in elsewhere.err
    assert "give --folder DIR/instances, where DIR is the folder that it printed" in elsewhere.err
    log = tmp_path / "process" / instance.instance_id / "inference.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree\n")
    local = await shell.run(*command, "--lines", "2")
    assert (local.code, local.out) == (0, "two\nthree\n")
    assert (await shell.run(*command, "--instance", str(uuid4()))).code == 1
    (shown,) = await shell.json("instances", *ids)
    assert shown["instanceId"] == instance.instance_id


def state_of(plane: ControlPlane, ids: tuple[str, str]) -> str:
    version = plane.catalog.version(*ids)
    return "" if version is None else version.state.value


async def test_settings_files_are_printed(shell: Shell) -> None:
    for program in ("gateway", "worker"):
        shown = await shell.run("config", "show", program)
        assert shown.out == (Path("config") / f"{program}.toml").read_text()
    assert (await shell.run("config", "show")).out.startswith("#")
    assert (await shell.run("config", "show", "other")).code == 2


async def test_text_of_users_cannot_control_the_terminal(shell: Shell) -> None:
    ids = await create(shell, "--description", "[red]\x1b[31mhello")
    out = (await shell.run("functions", "show", *ids)).out
    assert "[red]" in out
    assert "\x1b" not in out


async def test_a_body_may_come_from_a_file_and_options_override_it(
    shell: Shell, tmp_path: Path
) -> None:
    body = {"name": "from-file", "inferenceUrl": "/", "containerImage": "img:1", "tags": ["x"]}
    file = tmp_path / "body.json"
    file.write_text(json.dumps(body))
    made = await shell.json("functions", "create", "--file", str(file), "--name", "from-option")
    assert (made["name"], made["tags"]) == ("from-option", ["x"])
    ran = await shell.run("functions", "create", "--file", "-", "--json", stdin=json.dumps(body))
    assert json.loads(ran.out)["name"] == "from-file"


async def test_deployments_are_created_updated_and_removed(shell: Shell, fleet: Fleet) -> None:
    ids = await create(shell)
    made = await shell.json(
        "deployments", "create", *ids, "--gpu", "a10g", "--min", "0", "--concurrency", "3"
    )
    (spec,) = made["deploymentSpecifications"]
    assert (spec["gpu"], spec["minInstances"], spec["maxInstances"]) == ("a10g", 0, 1)
    changed = await shell.json("deployments", "update", *ids, "--max", "4")
    (spec,) = changed["deploymentSpecifications"]
    assert (spec["minInstances"], spec["maxInstances"]) == (0, 4)
    assert spec["maxRequestConcurrency"] == 3
    refused = await shell.run("functions", "delete", *ids)
    assert refused.code == 1
    assert "ACTIVE" in refused.err
    gone = await shell.run("deployments", "remove", *ids, "--watch")
    assert gone.code == 0, gone
    assert (await shell.run("deployments", "show", *ids)).code == 1
    assert (await shell.run("functions", "delete", *ids)).code == 0


async def test_one_of_several_specifications_is_updated_by_its_id(
    shell: Shell, tmp_path: Path
) -> None:
    ids = await create(shell)
    specs = [{"gpu": gpu, "minInstances": 0, "maxInstances": 1} for gpu in ("A10G", "T4")]
    file = tmp_path / "specs.json"
    file.write_text(json.dumps({"deploymentSpecifications": specs}))
    made = await shell.json("deployments", "create", *ids, "--file", str(file))
    spec_ids = [spec["gpuSpecificationId"] for spec in made["deploymentSpecifications"]]
    unclear = await shell.run("deployments", "update", *ids, "--max", "2")
    assert unclear.code == 1
    assert spec_ids[1] in unclear.err
    changed = await shell.json("deployments", "update", *ids, "--spec", spec_ids[1], "--max", "2")
    assert [spec["maxInstances"] for spec in changed["deploymentSpecifications"]] == [1, 2]


async def test_queues_and_positions(shell: Shell, queue: SetQueue) -> None:
    ids = await create(shell)
    await shell.json("deployments", "create", *ids, "--gpu", "A10G")
    queue.depths[ids[1]] = 12
    (shown,) = await shell.json("queues", "show", ids[0])
    assert shown["queueDepth"] == 12
    assert "12" in (await shell.run("queues", "show", *ids)).out
    request_id = str(uuid4())
    queue.in_line[request_id] = QueuedRequest(*ids, "someone", 5)
    assert (await shell.run("queues", "position", request_id)).out == "5\n"
    queue.in_line[request_id] = QueuedRequest(*ids, "someone", 5000)
    assert (await shell.run("queues", "position", request_id)).out == "1000 or more\n"


def watching(shell: Shell, *arguments: str) -> Program:
    return gateway(*arguments, "--watch", env=shell.env)


async def test_watch_follows_a_deployment_until_it_is_active(
    shell: Shell, fleet: Fleet, plane: ControlPlane
) -> None:
    ids = await create(shell)
    program = watching(shell, "deployments", "create", *ids, "--gpu", "A10G", "--min", "2")
    await plane.catalog.until(lambda: len(plane.catalog.instances(ids[1])) == 2)
    for instance in plane.catalog.instances(ids[1]):
        await until_line(program, f"instance {instance.instance_id} STARTING")
        await fleet.joins(ids[1], instance.instance_id)
        await until_line(program, f"instance {instance.instance_id} RUNNING")
    await until_line(program, "ACTIVE")
    assert await in_thread(program.wait_end) == 0
    assert "A10G" in program.output


async def test_watch_ends_with_the_reason_when_a_deployment_fails(
    shell: Shell, fleet: Fleet, plane: ControlPlane
) -> None:
    ids = await create(shell)
    program = watching(shell, "deployments", "create", *ids, "--gpu", "A10G")
    await plane.catalog.until(lambda: plane.catalog.instances(ids[1]))
    (instance,) = plane.catalog.instances(ids[1])
    fleet.backend.can_never_run(instance.instance_id, "no such image\nmore")
    assert await in_thread(program.wait_end) == 1
    last = program.output.splitlines()[-1]
    assert last == "gateway: The deployment failed: no such image"


async def until_line(program: Program, text: str) -> None:
    await in_thread(lambda: program.wait_line(lambda line: text in line))


async def in_thread(wait: Callable[[], T]) -> T:
    """Wait in a thread for a program that needs the API of this loop."""
    return await asyncio.to_thread(wait)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["functions", "create", "--image", "i"], "--name and --inference-url are required"),
        (["functions", "version", str(uuid4()), *IMAGE[4:]], "--image is required"),
        (["functions", "create", *IMAGE, "--env", "A"], "NAME=VALUE"),
        (
            ["functions", "create", *IMAGE, "--secret", "a=/nowhere"],
            "--secret a: /nowhere cannot be read: No such file or directory",
        ),
        (
            ["functions", "create", *IMAGE, "--secret", f"a={sys.executable}"],
            f"--secret a: {sys.executable} is not text in UTF-8",
        ),
        (["invoke", "echo", "/", "-X", "B AD"], "-X takes the name of an HTTP method"),
        (["invoke", "echo", "/", "-X", "G\udcffT"], "-X takes the name of an HTTP method"),
        (["invoke", "echo", "/", "-H", "B AD: x"], "--header takes NAME:VALUE"),
        (["invoke", "echo", "/", "-H", "a: b\nc: d"], "--header a: the VALUE must be one line"),
        (["config", "show", "foo"], "foo is not a program that has settings: give gateway or work"),
        (["functions", "create", "--file", "/nowhere"], "/nowhere"),
        (["functions", "show", "../one"], "../one is neither an id nor a name"),
        (["functions", "update", str(uuid4()), str(uuid4())], "Nothing to update"),
        (["functions", "update", "echo", "--rate-limit", ""], "with --no-rate-limit"),
        (["functions", "create", *IMAGE, "--rate-limit", ""], "--rate-limit needs a rate"),
        (
            ["functions", "update", "echo", "--rate-limit", "5-S", "--no-rate-limit"],
            "--rate-limit cannot be combined with --no-rate-limit",
        ),
        (["functions", "list", str(uuid4()), "--visibility", "public"], "cannot be combined"),
        (["deployments", "create", str(uuid4()), str(uuid4())], "--gpu or --file"),
        (["deployments", "update", str(uuid4()), str(uuid4())], "Nothing to update"),
        *(
            (["functions", "list", "--api-url", url], f"{url} is not a URL: give --api-url or")
            for url in ("localhost:8080", "http://", "http://a:99999", "http://a..b", "http://a/?b")
        ),
        (["keys", "list", "--nats-url", "nats://"], "nats:// is not a URL: give --store-url as"),
        (
            ["keys", "list", "--store-url", "redis://a", "--store-url", "nats://a"],
            "of NATS or of Redis, not of both",
        ),
        (["keys", "list", "--config", "/nowhere"], "/nowhere: cannot be read"),
        (["functions", "list", "--api-key", "two words"], "spaces"),
        (["functions", "list", "--api-key", ""], "GATEWAY_API_KEY"),
    ],
)
async def test_a_usage_error_is_reported_in_one_line_with_exit_code_2(
    shell: Shell, arguments: list[str], message: str
) -> None:
    ran = await shell.run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1


async def test_a_refusal_is_reported_in_one_line_with_exit_code_1(
    shell: Shell, plane: ControlPlane, client: Client
) -> None:
    ids = str(uuid4()), str(uuid4())
    unknown = await shell.run("functions", "show", *ids)
    assert (unknown.code, unknown.out) == (1, "")
    name = f"Function id '{ids[0]}', version '{ids[1]}'"
    assert f"{name}: Not found in this account (404 Not Found" in unknown.err
    assert unknown.err.count("\n") == 1
    bad = await shell.run("functions", "create", *IMAGE[2:], "--name", "-bad")
    assert bad.code == 1
    assert "field=name, message=String should consist of letters, digits, - and _" in bad.err
    stranger = await shell.run("functions", "list", "--api-key", "nvapi-nobody")
    assert stranger.code == 1
    assert "401" in stranger.err
    nowhere = await shell.run("functions", "list", "--api-url", "http://127.0.0.1:1")
    assert nowhere.code == 1
    assert "http://127.0.0.1:1" in nowhere.err
    assert nowhere.err.count("\n") == 1
