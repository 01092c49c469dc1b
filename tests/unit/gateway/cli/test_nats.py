"""What `gateway nats` says to options that do not fit, before it asks any server."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.nats import app


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], env=env)


def test_init_says_what_it_made(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    made = run("init", folder, "--path", "/etc/nats-of-gateway")
    assert made.exit_code == 0
    assert made.stdout == (folder / "gateway" / "nats.toml").read_text()
    assert 'credentials_file = "/etc/nats-of-gateway/gateway/gateway.creds"' in made.stdout
    as_json = json.loads(run("init", tmp_path / "other", "--nodes", 3, "--json").stdout)
    assert len(as_json["urls"]) == len(as_json["servers"]) == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--nodes", 2), "1 server, or 3"),
        (("--host", "a", "--host", "b"), "Give --host once"),
        (("--memory", "lots"), "--memory takes a size"),
        (("--path", "relative"), "--path must be absolute"),
        (("--tls-key", "x"), "go together"),
        (("--tls", "--tls-certificate", "x", "--tls-key", "y"), "--tls for certificates of its"),
    ],
)
def test_init_makes_nothing_of_options_that_do_not_fit(
    tmp_path: Path, arguments: tuple[object, ...], reason: str
) -> None:
    refused = run("init", tmp_path / "nats", *arguments)
    assert (refused.exit_code, reason in refused.stderr) == (2, True), refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_rotate_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    run("init", tmp_path / "nats")
    for arguments, reason in (
        ((tmp_path, "operator"), "give a folder that 'gateway nats init' made"),
        ((tmp_path / "nats", "master"), "master is no key: give operator, "),
        ((tmp_path / "nats", "operator", "--finish"), "The rotation of operator has not begun"),
        ((tmp_path / "nats", "certificates"), "no authority of its own"),
        ((tmp_path / "nats", "certificates", "--finish"), "leave out --finish"),
    ):
        refused = run("rotate", *arguments)
        assert (refused.exit_code, reason in refused.stderr) == (2, True), refused.stderr


def test_servers_that_are_away_are_told_in_one_line(tmp_path: Path) -> None:
    run("init", tmp_path / "nats", "--host", "127.0.0.1:1")
    away = run("push", tmp_path / "nats")
    assert away.exit_code == 1
    assert away.stderr.count("\n") == 1
    checked = run("check", "--config", tmp_path / "nats" / "gateway" / "nats.toml", "--json")
    assert checked.exit_code == 1
    (finding,) = json.loads(checked.stdout)["findings"]
    assert finding["problem"].startswith("no connection")


def test_a_check_of_settings_without_nats_is_refused() -> None:
    env = {"GATEWAY_QUEUE__BACKEND": "redis", "GATEWAY_STORE__BACKEND": "redis"}
    refused = run("check", env=env)
    assert (refused.exit_code, "neither queue nor store" in refused.stderr) == (2, True)
