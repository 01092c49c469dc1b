"""Options of `gateway dev`: what they describe, and a clear error for what makes no sense."""

import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.dev.options import (
    DEMO,
    OWN,
    DevOptions,
    OptionError,
    find_program,
    functions_of,
)

SERVER = "process://{python} serve.py --port {port}"


def options(**changed: Any) -> DevOptions:
    given: dict[str, Any] = {
        "functions": functions_of(None, None, (), ()),
        "port": 8080,
        "tls_port": None,
        "queue": "nats",
        "nats_port": 0,
        "admin_port": 0,
        "processes": 1,
        "concurrency": 1,
        "start_timeout_s": 600.0,
        "data_dir": None,
        "ready_file": None,
        "grace_s": 10.0,
    }
    return DevOptions(**{**given, **changed})


def test_without_a_server_the_demo_is_served() -> None:
    (demo,) = functions_of(None, None, (), ())
    assert (demo.name, demo.health_path, demo.is_demo) == (DEMO, "/health", True)


def test_an_own_server_is_the_same_function_whether_it_is_started_or_runs_already() -> None:
    (started,) = functions_of("serve --port {port}", None, (), ["/ready"])
    (running,) = functions_of(None, "http://localhost:9000/", (), ())
    assert (started.name, started.template, started.health_path) == (
        OWN,
        "process://serve --port {port}",
        "/ready",
    )
    assert (running.name, running.template, running.health_path) == (
        OWN,
        "http://localhost:9000",
        "/health",
    )
    assert running.runs_already
    assert not started.runs_already
    assert not running.is_demo


def test_with_grpc_every_server_speaks_it_and_has_no_health_path() -> None:
    chat, embed = functions_of(None, None, ["chat=serve", "embed=http://h:1"], (), speak_grpc=True)
    assert chat.speaks_grpc
    assert embed.speaks_grpc
    assert chat.health_check == "grpc.health.v1.Health/Check"
    (plain,) = functions_of("serve", None, (), ["/ready"])
    assert plain.health_check == "GET /ready"


def test_a_url_without_a_port_means_port_80() -> None:
    (running,) = functions_of(None, "http://[::1]", (), ())
    assert running.template == "http://[::1]:80"


def test_several_functions_are_commands_or_urls_with_a_health_path_each() -> None:
    chat, embed, speech = functions_of(
        None,
        None,
        ["chat=vllm serve m --port {port} --x=y", "embed=http://gpu.local:7000", "speech=say"],
        ["/ready", "embed=/v2/health/ready"],
    )
    assert chat.template == "process://vllm serve m --port {port} --x=y"
    assert embed.template == "http://gpu.local:7000"
    assert [function.health_path for function in (chat, embed, speech)] == [
        "/ready",
        "/v2/health/ready",
        "/ready",
    ]
    assert [function.uses_port for function in (chat, embed, speech)] == [True, True, False]


@pytest.mark.parametrize(
    ("command", "url", "functions", "paths", "message"),
    [
        ("a", "http://h:1", [], [], "--inference-command and --upstream exclude each other"),
        ("a", None, ["b=c"], [], "--inference-command and --function exclude"),
        (None, "http://h:1", ["b=c"], [], "--upstream and --function exclude .* NAME=URL"),
        (None, None, [], ["/ready"], "--health-path is for a server of your own"),
        ("", None, [], [], "--inference-command: the command is empty"),
        ("serve 'x", None, [], [], "--inference-command cannot be split into words"),
        (None, "", [], [], "--upstream '': give http://HOST:PORT"),
        (None, "localhost:8000", [], [], "--upstream 'localhost:8000': give http://HOST:PORT"),
        (None, "https://h:1", [], [], "plain HTTP"),
        (None, "http://h:1/v1", [], [], "without the path"),
        (None, "http://h:1?x", [], [], "give http://HOST:PORT"),
        (None, "http://h:70000", [], [], "give http://HOST:PORT"),
        (None, "http://u:p@h:1", [], [], "give http://HOST:PORT"),
        (None, None, ["vllm serve m"], [], "--function 'vllm serve m': give NAME=COMMAND"),
        (None, None, ["python -m x --a=b"], [], "a name consists of"),
        (None, None, ["=x"], [], "a name consists of"),
        (None, None, ["a="], [], "--function a: the command is empty"),
        (None, None, ["a=b", "a=c"], [], "two functions are called 'a'"),
        (None, None, ["a=https://h:1"], [], "--function a https://h:1: the worker speaks plain"),
        ("a", None, [], ["ready"], "--health-path 'ready': give a path such as /health"),
        ("a", None, [], ["/with blank"], "--health-path '/with blank'"),
        ("a", None, [], [""], "--health-path ''"),
        ("a", None, [], ["=/x"], "--health-path '=/x'"),
        ("a", None, [], ["b=/x"], "there is no function 'b', only my-server"),
        ("a", None, [], ["/x", "/y"], "--health-path is given twice"),
        (None, None, ["a=b"], ["a=/x", "a=/y"], "--health-path is given twice for a"),
    ],
)
def test_what_makes_no_sense_is_named(
    command: str | None, url: str | None, functions: list[str], paths: list[str], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as refused:
        functions_of(command, url, functions, paths)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("command", "paths", "message"),
    [
        (None, [], "--grpc is for a server of your own .* the demo speaks HTTP"),
        ("serve", ["/ready"], "--grpc and --health-path exclude each other: .* grpc.health.v1"),
    ],
)
def test_grpc_without_an_own_server_or_with_a_health_path_is_refused(
    command: str | None, paths: list[str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        functions_of(command, None, (), paths, speak_grpc=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nats_port": 8080}, "--nats-port and --port are both port 8080"),
        ({"admin_port": 8079, "processes": 2}, "--admin-port and --port are both port 8080"),
        ({"admin_port": 65535, "processes": 2}, "need ports above 65535"),
        ({"grace_s": float("nan")}, "--grace: nan"),
        ({"start_timeout_s": float("inf")}, "--start-timeout: inf"),
        ({"ready_file": Path("/nowhere/ready.json")}, "--ready-file: there is no folder /nowhere"),
        ({"ready_file": Path("/")}, "--ready-file: / is a folder"),
        ({"ready_file": Path("/proc/x")}, "--ready-file: nothing can be written .* /proc: [A-Z]"),
        ({"data_dir": Path(__file__)}, "--data-dir: .* is not a folder"),
        ({"data_dir": Path("/proc/x")}, "--data-dir: the folder /proc/x cannot be made: [A-Z]"),
        ({"data_dir": Path("/proc")}, "--data-dir: nothing can be written .* /proc: [A-Z]"),
        (
            {"functions": functions_of(None, "http://localhost:8080", (), ())},
            "port 8080 is that of the server .* choose another with --port",
        ),
        (
            {"functions": functions_of("no-such-program {port}", None, (), ())},
            "--inference-command: there is no program 'no-such-program' on the PATH",
        ),
    ],
)
def test_values_that_cannot_be_used_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options(**changed).check()


def test_ports_of_another_machine_and_any_free_ports_do_not_collide() -> None:
    elsewhere = functions_of(None, "http://gpu.local:8080", (), ())
    options(functions=elsewhere).check()
    options(port=0).check()


def test_a_program_is_found_as_the_instance_will_find_it(tmp_path: Path) -> None:
    script = tmp_path / "serve.sh"
    script.write_text("#!/bin/sh\n")
    for command, message in (
        (f"{script} {{port}}", "--function a: .*serve.sh cannot be executed"),
        (f"{tmp_path}/missing", "--function a: .*missing does not exist"),
        ("missing", "--function a: there is no program 'missing' on the PATH"),
    ):
        with pytest.raises(OptionError, match=message):
            find_program(functions_of(None, None, [f"a={command}"], ())[0])
    script.chmod(0o755)
    for command in (str(script), "{python} -m x", f"{sys.executable} x", "sh -c true"):
        find_program(functions_of(None, None, [f"a={command}"], ())[0])
