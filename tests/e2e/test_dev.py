"""`gateway dev`: its output, its errors and its end."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.support.dev import Dev, start_dev
from tests.support.programs import Program, command_line, descendants, gateway, wait_gone
from tests.support.waiting import PATIENCE_S, until_blocking

TINY = "{python} -m tests.support.tiny_server --port {port}"


def curl_lines(dev: Dev) -> list[str]:
    return [line.strip() for line in dev.program.lines if line.strip().startswith("curl ")]


def paste(line: str) -> str:
    done = subprocess.run(  # exactly the text that a user pastes into a shell
        line.replace("curl ", "curl -sS --fail-with-body ", 1),
        shell=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_two_printed_curl_lines_work_when_pasted(dev: Dev) -> None:
    plain, events = curl_lines(dev)
    assert paste(plain) == "hello"
    assert paste(events.replace("interval_ms=500", "interval_ms=5")).count("data:") >= 5


def test_the_printed_python_works_when_pasted(dev: Dev) -> None:
    begin = next(n for n, line in enumerate(dev.program.lines) if line.startswith("from openai"))
    code = "".join(dev.program.lines[begin : begin + 4])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert "owned_by='examples'" in done.stdout


async def test_a_detached_call_is_fetched_from_the_functions_own_host(dev: Dev) -> None:
    async with dev.client() as client:
        accepted = await client.post("/echo", content=b"x", headers={"prefer": "respond-async"})
        assert accepted.status_code == 202
        response = await client.get(f"{accepted.headers['location']}/response")
        assert (response.status_code, response.content) == (200, b"x")
        assert (await client.get("/v2/requests/own")).status_code == 404


def test_with_tls_an_authority_of_its_own_can_be_trusted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    authorities = []
    for _ in range(2):
        dev = start_dev(tmp_path, "--tls", "--tls-port", "0", "--data-dir", str(data))
        try:
            file = dev.ready["tls_authority"]
            assert f"curl --cacert {file}" in dev.program.output
            context = ssl.create_default_context(cafile=file)
            with httpx.Client(http2=True, verify=context, timeout=PATIENCE_S) as client:
                port = dev.ready["tls_url"].rpartition(":")[2]
                url = f"https://{dev.ready['function_id']}.invocation.localhost:{port}/echo"
                extensions = {"sni_hostname": httpx.URL(url).host}
                response = client.post(
                    f"https://127.0.0.1:{port}/echo",
                    headers=dev.headers,
                    content=b"hello",
                    extensions=extensions,
                )
            assert (response.http_version, response.content) == ("HTTP/2", b"hello")
            # Without TLS it serves as ever.
            plain = httpx.post(f"{dev.ready['invocation_url']}/echo", headers=dev.headers)
            assert plain.status_code == 200
        finally:
            dev.program.stop()
        authorities.append(Path(file).read_bytes())
    assert authorities[0] == authorities[1]


def test_the_ready_file_has_everything_a_script_needs(dev: Dev) -> None:
    assert set(dev.ready) == {
        "invocation_url",
        "api_url",
        "function_id",
        "function_version_id",
        "functions",
        "api_key",
        "nats_url",
    }
    assert dev.ready["functions"]["demo"] == {
        "function_id": dev.ready["function_id"],
        "function_version_id": dev.ready["function_version_id"],
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    dev = start_dev(tmp_path)
    family = descendants(dev.program.pid)
    for name in ("nats-server", "gateway serve", "worker_agent", "gateway.examples.inference"):
        assert any(name in line for line in family.values()), name
    assert dev.program.stop(number) == 0
    wait_gone(list(family))
    assert not (tmp_path / "ready.json").exists()


def test_on_redis_alone_calls_go_through_it_and_its_password_stays_with_the_gateway(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    # Each call through the queue: on a channel it would not pass the server.
    env = {"GATEWAY_QUEUE__DIRECT": "false"}
    keys = set()
    for _ in range(2):
        dev = start_dev(tmp_path, "--queue", "redis", "--data-dir", str(data), env=env)
        keys.add((dev.ready["function_id"], dev.ready["api_key"]))
        family = descendants(dev.program.pid)
        try:
            assert dev.ready["redis_url"] in dev.program.output
            assert any("valkey-server" in line for line in family.values())
            assert not any("nats-server" in line for line in family.values())
            url = f"{dev.ready['invocation_url']}/echo"
            response = httpx.post(url, headers=dev.headers, content=b"hello", timeout=PATIENCE_S)
            assert (response.status_code, response.content) == (200, b"hello")
            password = (data / "redis" / "gateway.password").read_bytes()
            has_password = {
                line
                for pid, line in family.items()
                if password in Path(f"/proc/{pid}/environ").read_bytes()
            }
            assert has_password
            assert all("gateway serve" in line for line in has_password)
            options = {"username": "gateway", "password": password.decode(), "protocol": 3}
            with Redis.from_url(dev.ready["redis_url"], **options) as client:
                users = {link["user"] for link in client.client_list()}
            assert users == {"gateway", f"worker.local.{dev.ready['function_version_id']}"}
            assert "redis.unsafe_setting" not in (data / "gateway.log").read_text()
        finally:
            assert dev.program.stop() == 0
        wait_gone(list(family))
    # They are in the store, which is there again.
    assert len(keys) == 1


def test_packages_of_the_current_folder_are_not_mistaken_for_ours(tmp_path: Path) -> None:
    for name in ("gateway", "worker_agent", "wire"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    command = Path(sys.executable).with_name("gateway")
    program = Program([str(command), "dev", "--port", "0"], cwd=tmp_path)
    program.wait_line(lambda line: line.startswith("Ready."), 3 * PATIENCE_S)
    assert program.stop() == 0


def test_a_killed_dev_takes_its_children_with_it(tmp_path: Path) -> None:
    dev = start_dev(tmp_path)
    family = descendants(dev.program.pid)
    assert len(family) >= 4
    dev.program.stop(signal.SIGKILL)
    wait_gone(list(family))


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program = gateway("dev", "--port", str(port))
        assert program.wait_end() == 1
    (line,) = program.output.splitlines()
    assert f"port {port} cannot be used" in line
    assert "--port" in line


def test_a_second_dev_on_a_data_folder_is_one_clear_line_and_touches_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    dev = start_dev(tmp_path, "--data-dir", str(folder))
    try:
        config = (folder / "nats.conf").stat()
        ready_file = str(tmp_path / "ready.json")
        second = gateway(
            "dev", "--port", "0", "--data-dir", str(folder), "--ready-file", ready_file
        )
        assert second.wait_end() == 1
        (line,) = second.output.splitlines()
        assert f"data folder {folder} is in use by another `gateway dev`" in line
        assert (folder / "nats.conf").stat() == config
        assert json.loads(Path(ready_file).read_text()) == dev.ready
        assert httpx.post(f"{dev.ready['invocation_url']}/echo", headers=dev.headers).is_success
    finally:
        assert dev.program.stop() == 0


def test_a_start_waits_until_the_nats_server_of_a_killed_dev_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    dev = start_dev(tmp_path, "--data-dir", str(folder), "--grace", "0")
    family = descendants(dev.program.pid)
    (server,) = [pid for pid, line in family.items() if "nats-server" in line]
    again = None
    os.kill(server, signal.SIGSTOP)  # It gets the same signal as the others, and is slow to end.
    try:
        dev.program.stop(signal.SIGKILL)
        again = gateway("dev", "--port", "0", "--data-dir", str(folder))
        again.wait_line(lambda line: "waiting for the nats-server of an earlier run" in line)
        assert "starting nats-server" not in again.output
        os.kill(server, signal.SIGCONT)
        again.wait_line(lambda line: line.startswith("Ready."), 3 * PATIENCE_S)
        assert command_line(server) == ""
    finally:
        if command_line(server):
            os.kill(server, signal.SIGKILL)
        if again is not None:
            again.stop()
    assert again.process.returncode == 0
    wait_gone(list(family))


def test_a_dead_child_ends_dev_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = "{python} -c \"print({'gpus': 0}, flush=True); raise SystemExit(3)\" {port}"
    program = gateway("dev", "--port", "0", "--inference-command", command)
    assert program.wait_end() == 1
    assert "the inference server ended with code 3" in program.output
    assert "{'gpus': 0}" in program.output
    assert "Traceback" not in program.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inference-command", "serve 'model {port}"], "--inference-command"),
        (["--inference-command", ""], "--inference-command"),
        (["--inference-command", "no-such-program {port}"], "no-such-program"),
        (["--inference-command", "sh", "--upstream", "http://h:1"], "exclude each other"),
        (["--health-path", "/ready"], "--health-path"),
        (["--nats-port", "65536"], "--nats-port"),
        (["--ready-file", "/nowhere/ready.json"], "/nowhere"),
    ],
)
def test_an_unusable_argument_is_reported_and_nothing_is_ready(
    arguments: list[str], message: str
) -> None:
    program = gateway("dev", "--port", "0", *arguments)
    assert program.wait_end() != 0
    assert message in program.output
    assert "Traceback" not in program.output
    assert "Ready." not in program.output


def test_serve_refuses_unknown_settings(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[edge]\nlisten = ["127.0.0.1:0"]\nlistne = 1\n[drain]\ntimeout_s = "soon"\n')
    program = gateway("serve", "--config", str(config))
    assert program.wait_end() == 2
    assert "edge.listne: no such setting" in program.output
    assert "drain.timeout_s" in program.output
    assert "Traceback" not in program.output


def test_serve_on_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for processes in ("1", "2"):
            env = {"GATEWAY_EDGE__LISTEN": f"127.0.0.1:{port}"}
            program = gateway("serve", "--processes", processes, env=env)
            assert program.wait_end() == 2
            (line,) = program.output.splitlines()
            assert f"cannot listen on 127.0.0.1:{port}" in line


def test_a_key_is_created_used_and_revoked_from_the_command_line(dev: Dev) -> None:
    url = dev.ready["nats_url"]
    made = gateway("keys", "create", "--account", "dev", "--nats-url", url, "--json")
    assert made.wait_end() == 0, made.output
    key = json.loads(made.output)
    call = {**dev.headers, "authorization": f"Bearer {key['key']}"}
    with httpx.Client(base_url=dev.ready["invocation_url"], timeout=PATIENCE_S) as client:
        wait_for_status(client, call, 200)
        revoked = gateway("keys", "revoke", key["id"], "--nats-url", url)
        assert revoked.wait_end() == 0, revoked.output
        wait_for_status(client, call, 401)


def wait_for_status(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    """Wait up to a second for the status: a change of a key takes effect within that time."""
    until_blocking(
        lambda: client.post("/echo", headers=headers, content=b"x"),
        lambda response: response.status_code == status,
        what=f"the status {status}",
        timeout_s=1.0,
    )


@pytest.mark.timeout(180)  # it starts everything three times
def test_a_restart_keeps_functions_and_keys_its_own_and_those_of_users(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    dev = start_dev(tmp_path, "--data-dir", str(folder))
    demo = {"--name": "demo", "--image": "demo", "--inference-url": "/echo"}
    options = [text for option in demo.items() for text in option]
    function = command("functions", "create", *options, "--json", env=api_of(dev))
    key = command("keys", "create", "--description", "gateway dev", "--json", env=api_of(dev))
    first = dev.ready
    assert dev.program.stop() == 0

    dev = start_dev(tmp_path, "--data-dir", str(folder))
    for name in ("function_id", "function_version_id", "api_key"):
        assert dev.ready[name] == first[name]
    assert (folder / "api-key").stat().st_mode & 0o077 == 0
    listed = command("functions", "list", "--json", env=api_of(dev))
    assert {version["id"] for version in listed} == {dev.ready["function_id"], function["id"]}
    url = dev.ready["nats_url"]
    keys = command("keys", "list", "--nats-url", url, "--json")
    assert {entry["id"] for entry in keys} == {"gateway-dev", key["id"]}
    with httpx.Client(base_url=dev.ready["invocation_url"], timeout=PATIENCE_S) as client:
        for value in (first["api_key"], key["key"]):
            headers = {**dev.headers, "authorization": f"Bearer {value}"}
            assert client.post("/echo", headers=headers, content=b"x").status_code == 200
    update = ("functions", "update", first["function_id"], "--tag", "prod", "--json")
    assert command(*update, env=api_of(dev))["tags"] == ["prod"]
    revoked = gateway("keys", "revoke", "gateway-dev", "--nats-url", url)
    assert revoked.wait_end() == 0, revoked.output
    assert dev.program.stop() == 0

    dev = start_dev(tmp_path, "--data-dir", str(folder))
    assert dev.ready["function_id"] == first["function_id"], "its tags made it another function"
    assert dev.ready["api_key"] != first["api_key"], "a revoked key came back"
    assert dev.program.stop() == 0


@pytest.mark.timeout(120)  # it starts everything twice
def test_another_health_path_is_another_version_of_the_same_function(tmp_path: Path) -> None:
    own = ("--data-dir", str(tmp_path / "data"), "--inference-command", TINY)
    first = start_dev(tmp_path, *own)
    assert first.program.stop() == 0
    second = start_dev(tmp_path, *own, "--health-path", "/other")
    assert second.ready["function_id"] == first.ready["function_id"]
    assert second.ready["function_version_id"] != first.ready["function_version_id"]
    (listed,) = command("functions", "list", "--json", env=api_of(second))
    assert listed["versionId"] == second.ready["function_version_id"]
    assert second.program.stop() == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_calls_of_ones_own_servers_are_printed_and_work_when_pasted(tmp_path: Path) -> None:
    """One is started, one runs already and is stopped by nobody."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = Program([sys.executable, "-m", "tests.support.tiny_server", "--port", str(port)])
    try:
        running.wait_line(lambda line: "listening" in line)
        dev = start_dev(
            tmp_path,
            *("--function", f"mine={TINY}", "--function", f"other=http://127.0.0.1:{port}"),
            *("--health-path", "/any", "--health-path", "other=/path?x=1"),
        )
        calls = curl_lines(dev)
        assert [call.rsplit("/", 1)[1].rstrip("'") for call in calls] == ["any", "any", "path?x=1"]
        assert [paste(call) for call in calls] == ["OK\n"] * 3
        assert set(dev.ready["functions"]) == {"mine", "other"}
        assert dev.ready["functions"]["other"]["function_id"] in calls[2]
        assert dev.program.stop() == 0
        assert running.process.poll() is None
    finally:
        running.stop()


def test_a_server_that_loads_is_shown_with_its_last_line_and_can_be_interrupted(
    tmp_path: Path,
) -> None:
    loading = f"{{python}} {loader(tmp_path)} {{port}}"
    program = gateway("dev", "--port", "0", "--inference-command", loading)
    shown = program.wait_line(
        lambda line: "is starting" in line and "GET /health: Connection refused" in line,
        3 * PATIENCE_S,
    )
    assert shown.rstrip().endswith("Loading shards: 50%")
    family = descendants(program.pid)
    assert any("loader.py" in line for line in family.values())
    assert program.stop(signal.SIGINT) == 0
    wait_gone(list(family))
    assert "Ready." not in program.output
    assert "Traceback" not in program.output


@pytest.mark.parametrize("phase", ["nats-server", "the gateway", "deploying"])
def test_a_start_can_be_interrupted_in_each_phase(phase: str) -> None:
    program = gateway("dev", "--port", "0")
    program.wait_line(lambda line: phase in line, 3 * PATIENCE_S)
    family = descendants(program.pid)
    assert program.stop(signal.SIGINT) == 0
    wait_gone(list(family))
    assert "gateway dev: stopped" in program.output
    assert "Traceback" not in program.output
    assert "Ready." not in program.output


def test_a_server_without_its_health_path_is_reported_after_the_start_timeout() -> None:
    no_health = "{python} -m http.server {port}"
    program = gateway(
        "dev", "--port", "0", "--inference-command", no_health, "--start-timeout", "8"
    )
    assert program.wait_end(3 * PATIENCE_S) == 1
    assert "was not healthy within 8 s (--start-timeout)" in program.output
    assert "GET /health: status 404, expected 200 (--health-path)" in program.output
    assert "Traceback" not in program.output


def loader(folder: Path) -> Path:
    """Write a server that loads for ever, with a progress bar, and does not end at SIGTERM."""
    script = folder / "loader.py"
    script.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.stderr.write('\\rLoading shards: 10%\\r\\x1b[32mLoading shards\\x1b[0m: 50%')\n"
        "sys.stderr.flush()\n"
        "while True:\n"
        "    signal.pause()\n"
    )
    return script


def test_a_bootstrap_secret_is_printed_at_the_first_start_and_outlives_later_ones(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    dev = start_dev(tmp_path, "--data-dir", str(folder))
    (printed,) = re.findall(r"nvboot-\S+", dev.program.output)
    assert mint_with(printed, dev) == 200
    secret = command("bootstrap", "reset", "--nats-url", dev.ready["nats_url"], "--json")["secret"]
    assert dev.program.stop() == 0

    dev = start_dev(tmp_path, "--data-dir", str(folder))
    assert "nvboot-" not in dev.program.output
    assert mint_with(secret, dev) == 200
    assert mint_with(printed, dev) == 401
    assert dev.program.stop() == 0


def test_neither_worker_nor_inference_server_gets_a_login_of_the_gateway(dev: Dev) -> None:
    family = descendants(dev.program.pid)
    found = set()
    for program in ("worker_agent", "gateway.examples.inference"):
        (pid,) = [pid for pid, line in family.items() if program in line]
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        names = {entry.partition("=")[0] for entry in environment}
        assert not [name for name in names if name.startswith("GATEWAY_")]
        assert not [
            entry for entry in environment if re.search(r"master\.key|nats-logins|nvapi-", entry)
        ]
        if dev.ready["nats_url"] in "\n".join(environment):
            found.add(program)
    # A worker needs the address of NATS; it gets its own login when it registers.
    assert found == {"worker_agent"}


def api_of(dev: Dev) -> dict[str, str]:
    """Return the environment that lets commands call the API."""
    return {"GATEWAY_API_URL": dev.ready["api_url"], "GATEWAY_API_KEY": dev.ready["api_key"]}


def command(*arguments: str, env: dict[str, str] | None = None) -> Any:
    """Run a command that prints JSON and return the value."""
    program = gateway(*arguments, env=env)
    assert program.wait_end() == 0, program.output
    return json.loads(program.output)


def mint_with(secret: str, dev: Dev) -> int:
    """Request an admin token and return the status."""
    headers = {"authorization": f"Bearer {secret}"}
    url = f"{dev.ready['api_url']}/v1/admin/keys"
    response = httpx.post(url, headers=headers, json={"nca_id": "mine"}, timeout=PATIENCE_S)
    return response.status_code


def test_a_killed_control_plane_leaves_no_inference_server_behind_a_wrapper(tmp_path: Path) -> None:
    wrapped = "sh -c '{python} -P -m gateway.examples.inference --port {port} & wait'"
    dev = start_dev(tmp_path, "--inference-command", wrapped)
    family = descendants(dev.program.pid)
    (control,) = [pid for pid, line in family.items() if "gateway serve" in line]
    os.kill(control, signal.SIGKILL)
    assert dev.program.wait_end() == 1
    wait_gone(list(family))
