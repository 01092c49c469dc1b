"""``gateway keys`` against a real store."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.auth.keys import digest_of, is_key
from gateway.auth.scopes import ACCOUNT_SCOPES, ADMIN_SETUP
from gateway.keys_cli import app
from tests.support.nats_server import NatsServer

F = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
V = "11111111-2222-4333-8444-555555555555"
run = CliRunner(env={"COLUMNS": "40"}).invoke


def call(server: NatsServer, *arguments: str) -> object:
    result = run(app, [*arguments, "--nats-url", server.url, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_key_is_made_listed_and_revoked(shared_nats_server: NatsServer) -> None:
    made = call(shared_nats_server, "create", "--account", "acme", "--expires-in", "2h")
    assert isinstance(made, dict)
    secret = made.pop("key")
    assert is_key(secret.encode())
    assert made["scopes"] == ["invoke_function"]
    assert made["status"] == "active"
    assert call(shared_nats_server, "list", "--account", "acme") == [made]
    assert call(shared_nats_server, "revoke", made["id"]) == {**made, "status": "revoked"}
    listed = run(app, ["list", "--nats-url", shared_nats_server.url])
    assert made["id"] in listed.stdout
    assert "revoked" in listed.stdout
    for output in (listed.stdout, json.dumps(call(shared_nats_server, "list"))):
        assert secret not in output
        assert digest_of(secret.encode()).hex() not in output


def test_the_key_alone_is_on_standard_output(shared_nats_server: NatsServer) -> None:
    result = run(app, ["create", "--account", "plain", "--nats-url", shared_nats_server.url])
    assert is_key(result.stdout.strip().encode())
    assert "plain" in result.stderr


def test_a_key_may_have_every_scope_there_is_for_keys(shared_nats_server: NatsServer) -> None:
    scopes = [part for scope in sorted(ACCOUNT_SCOPES) for part in ("--scope", scope)]
    made = call(shared_nats_server, "create", "--account", "all", *scopes)
    assert isinstance(made, dict)
    assert made["scopes"] == sorted(ACCOUNT_SCOPES)
    result = run(app, ["create", "--account", "all", "--scope", ADMIN_SETUP])
    assert result.exit_code == 1
    assert "is unknown" in result.stderr


def test_a_key_may_be_limited(shared_nats_server: NatsServer) -> None:
    limits = ["--function", F, "--function", f"{F}/{V}", "--scope", "queue_details"]
    made = call(shared_nats_server, "create", "--account", "limited", *limits)
    assert isinstance(made, dict)
    assert made["scopes"] == ["queue_details"]
    assert made["resources"] == [
        {"type": "function", "id": f"{F}/*"},
        {"type": "function", "id": f"{F}/{V}"},
    ]


def test_where_nats_is_may_come_from_the_gateways_settings(
    shared_nats_server: NatsServer, tmp_path: Path
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[nats]\nurls = ["{shared_nats_server.url}"]\n')
    assert run(app, ["list", "--config", str(config)]).exit_code == 0
    environ = {"GATEWAY_NATS__URLS": shared_nats_server.url}
    assert run(app, ["list"], env=environ).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "--account", "a", "--scope", "everything"], "everything"),
        (["create", "--account", "a", "--function", "echo"], "echo"),
        (["create", "--account", "a", "--expires-in", "soon"], "soon"),
        (["create", "--account", "a", "--expires-in", "999999999d"], "100 years"),
        (["create", "--account", "two words"], "--account"),
        (["revoke", "no-such-key"], "no-such-key"),
        (["revoke", "$KV.>"], "There is no key"),
        (["list", "--config", "/nowhere.toml"], "nowhere.toml"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    shared_nats_server: NatsServer, arguments: list[str], told: str
) -> None:
    result = run(app, [*arguments, "--nats-url", shared_nats_server.url])
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_store_that_is_not_there_is_told_in_one_line() -> None:
    result = run(app, ["list", "--nats-url", "nats://me:secret@127.0.0.1:1"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "nats://127.0.0.1:1" in result.stderr
    assert "secret" not in result.stderr
