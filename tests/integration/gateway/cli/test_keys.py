"""``gateway keys`` in a real store, and over the real API."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from gateway.auth.keys import digest_of, is_key
from gateway.auth.scopes import ACCOUNT_SCOPES, ADMIN_SETUP
from gateway.cli.keys import app
from tests.integration.gateway.cli.filled_store import opened
from tests.integration.gateway.cli.shell import Shell
from tests.support.control import SCOPES, Client
from tests.support.identity import IdentityPlane, identity_plane
from tests.support.nats_server import NatsServer

F = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
V = "11111111-2222-4333-8444-555555555555"
MEMBERS = [
    *("id", "account", "subject", "status", "scopes", "resources"),
    *("createdAt", "expiresAt", "description"),
]
run = CliRunner(env={"COLUMNS": "40", "GATEWAY_API_KEY": ""}).invoke


def call(server: NatsServer, *arguments: str) -> object:
    result = run(app, [*arguments, "--nats-url", server.url, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_key_is_created_listed_and_revoked(shared_nats_server: NatsServer) -> None:
    made = call(shared_nats_server, "create", "--account", "acme", "--expires-in", "2h")
    assert isinstance(made, dict)
    secret = made.pop("key")
    assert is_key(secret.encode())
    assert list(made) == MEMBERS
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


def test_without_a_key_and_a_store_both_ways_are_named() -> None:
    away = CliRunner(env={"GATEWAY_API_KEY": "", "GATEWAY_NATS__URLS": "nats://127.0.0.1:1"}).invoke
    result = away(app, ["list"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "The store at nats://127.0.0.1:1 cannot be used" in result.stderr
    assert "give an API key with GATEWAY_API_KEY or --api-key" in result.stderr
    asked_for = away(app, ["list", "--nats-url", "nats://127.0.0.1:1"])
    assert "GATEWAY_API_KEY" not in asked_for.stderr


def test_only_the_key_is_on_standard_output(shared_nats_server: NatsServer) -> None:
    result = run(app, ["create", "--account", "plain", "--nats-url", shared_nats_server.url])
    assert is_key(result.stdout.strip().encode())
    assert "plain" in result.stderr


def test_a_key_may_have_every_scope_of_an_account(shared_nats_server: NatsServer) -> None:
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


def test_the_nats_servers_may_come_from_the_settings_of_the_gateway(
    shared_nats_server: NatsServer, tmp_path: Path
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[nats]\nurls = ["{shared_nats_server.url}"]\n')
    assert run(app, ["list", "--config", str(config)]).exit_code == 0
    environ = {"GATEWAY_NATS__URLS": shared_nats_server.url}
    assert run(app, ["list"], env=environ).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--account", "a", "--scope", "everything"], "everything"),
        (["create", "--account", "a", "--function", "echo"], "echo"),
        (["create", "--account", "a", "--expires-in", "soon"], "soon"),
        (["create", "--account", "a", "--expires-in", "999999999d"], "100 years"),
        (["create", "--account", "two words"], "--account"),
        (["revoke", "no-such-key"], "no-such-key"),
        (["revoke", "$KV.>"], "There is no key"),
    ],
)
def test_an_error_is_reported_in_one_line(
    shared_nats_server: NatsServer, arguments: list[str], message: str
) -> None:
    result = run(app, [*arguments, "--nats-url", shared_nats_server.url])
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_an_account_is_required_in_the_store(shared_nats_server: NatsServer) -> None:
    result = run(app, ["create", "--nats-url", shared_nats_server.url])
    assert result.exit_code == 2
    assert "Give --account" in result.stderr
    assert result.stderr.count("\n") == 1


async def test_an_unreadable_key_is_reported_and_hides_no_other(
    shared_nats_server: NatsServer,
) -> None:
    async with opened(shared_nats_server) as store:
        await store.store.put_raw("keys", "new", b'{"schema":2}')
    url = ["--nats-url", shared_nats_server.url]
    await asyncio.to_thread(call, shared_nats_server, "create", "--account", "beside")
    listed = await asyncio.to_thread(run, app, ["list", *url])
    assert "beside" in listed.stdout
    assert "new" in listed.stderr
    revoked = await asyncio.to_thread(run, app, ["revoke", "new", *url])
    assert (revoked.exit_code, revoked.stdout) == (1, "")
    assert revoked.stderr.count("\n") == 1


@pytest.mark.parametrize("scheme", ["nats", "redis"])
def test_an_unreachable_store_is_reported_in_one_line(scheme: str) -> None:
    result = run(app, ["list", "--store-url", f"{scheme}://me:secret@127.0.0.1:1"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"{scheme}://127.0.0.1:1" in result.stderr
    assert "secret" not in result.stderr


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("master") / "master.key"


@pytest.fixture
async def plane(shared_nats_server: NatsServer, key_file: Path) -> AsyncIterator[IdentityPlane]:
    async with identity_plane(shared_nats_server.url, key_file) as plane:
        yield plane


@pytest.fixture
def account() -> str:
    return f"own-{uuid4().hex}"


@pytest.fixture
async def client(plane: IdentityPlane, account: str) -> Client:
    """A client with an admin token, which ``shell`` uses."""
    return await plane.admin(account)


def holder(shell: Shell, client: Client) -> Shell:
    """Return a shell with another credential for the same API."""
    return Shell(shell.url, client)


async def is_valid(plane: IdentityPlane, key: str) -> bool:
    """Whether the key is valid. It may not list functions, which gives 403 instead of 401."""
    return (await plane.holder(key).get("/v2/nvcf/functions")).status == 403


async def test_a_key_is_created_listed_and_revoked_over_the_api(
    shell: Shell, plane: IdentityPlane, account: str
) -> None:
    assert await shell.json("keys", "list") == []
    limits = ["--expires-in", "2h", "--function", F, "--description", "for a test"]
    made = await shell.json("keys", "create", *limits)
    secret = made.pop("key")
    assert is_key(secret.encode())
    assert list(made) == MEMBERS
    assert (made["account"], made["subject"]) == (account, "admin")
    assert (made["status"], made["description"]) == ("active", "for a test")
    assert made["scopes"] == ["invoke_function"]
    assert made["resources"] == [{"type": "function", "id": f"{F}/*"}]
    assert await is_valid(plane, secret)
    assert await shell.json("keys", "list") == [made]
    shown = (await shell.run("keys", "list")).out
    assert all(text in shown for text in (made["id"], account, F))
    assert await shell.json("keys", "revoke", made["id"]) == {**made, "status": "revoked"}
    assert not await is_valid(plane, secret)
    assert await shell.json("keys", "list") == []


async def test_both_backends_show_the_same_of_a_key(
    shell: Shell, shared_nats_server: NatsServer, account: str
) -> None:
    requests: list[list[str]] = [
        ["--scope", "queue_details", "--scope", "list_functions", "--function", f"{F}/{V}"],
        ["--expires-in", "30d"],
    ]
    made = [await shell.json("keys", "create", *request) for request in requests]
    own = ["--account", account, "--subject", "me", "--nats-url", shared_nats_server.url]
    made += [await shell.json("keys", "create", *request, *own) for request in requests]

    def by_id(keys: list[dict[str, Any]]) -> dict[str, Any]:
        return {key["id"]: {name: key[name] for name in MEMBERS} for key in keys}

    in_store = ["keys", "list", *own[:2], *own[4:]]
    listed = await shell.json("keys", "list")
    assert by_id(listed) == by_id(await shell.json(*in_store)) == by_id(made)
    table = (await shell.run("keys", "list")).out
    assert table == (await shell.run(*in_store)).out
    assert f"{F}/{V}" in table
    assert re.search(r"^expires +never *$", table, re.MULTILINE)
    assert re.search(r"^functions +all *$", table, re.MULTILINE)


async def test_only_the_key_is_on_standard_output_over_the_api_too(
    shell: Shell, account: str
) -> None:
    made = await shell.run("keys", "create", "--account", account)
    assert is_key(made.out.removesuffix("\n").encode())
    assert account in made.err
    (key,) = await shell.json("keys", "list", "--account", account)
    revoked = await shell.run("keys", "revoke", key["id"])
    assert (revoked.code, revoked.out) == (0, "")
    assert key["id"] in revoked.err


async def test_a_key_with_account_setup_manages_keys_of_its_account(
    shell: Shell, plane: IdentityPlane, account: str
) -> None:
    key = await shell.json("keys", "create", "--scope", "account_setup", "--scope", "queue_details")
    own = holder(shell, plane.holder(key["key"]))
    made = await own.json("keys", "create", "--scope", "queue_details")
    assert made["account"] == account
    more = await own.run("keys", "create", "--scope", "deploy_function")
    assert more.code == 1
    assert "cannot give what it lacks: deploy_function (403" in more.err
    assert await own.json("keys", "revoke", made["id"])


async def test_store_options_take_precedence_over_a_key_in_the_environment(
    shell: Shell, shared_nats_server: NatsServer, tmp_path: Path, account: str
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[nats]\nurls = ["{shared_nats_server.url}"]\n')
    made = await shell.json("keys", "create", "--account", account, "--config", str(config))
    assert made["subject"] == made["id"]
    await shell.json("keys", "revoke", made["id"], "--nats-url", shared_nats_server.url)
    in_store = ["--account", account, "--nats-url", shared_nats_server.url]
    (kept,) = await shell.json("keys", "list", *in_store)
    assert kept["status"] == "revoked"
    assert await shell.json("keys", "list") == []


async def test_without_a_key_the_store_of_the_environment_is_used(
    shell: Shell, shared_nats_server: NatsServer, account: str
) -> None:
    env = {"GATEWAY_API_KEY": "", "GATEWAY_NATS__URLS": shared_nats_server.url}
    ran = await shell.run("keys", "create", "--account", account, "--subject", "me", **env)
    assert ran.code == 0, ran
    (key,) = await shell.json("keys", "list")
    assert key["subject"] == "me"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["create", "--scope", "everything"], 1, "A scope is unknown. Scopes: account_setup"),
        (["create", "--expires-in", "367d"], 1, "gateway: --expires-in must be in the future, and"),
        (["create", "--expires-in", "soon"], 1, "soon"),
        (["create", "--description", "<b>"], 1, "field=description"),
        (["create", "--function", "echo"], 1, "echo"),
        (["create", "--account", "other"], 1, "--account other"),
        (["list", "--account", "other"], 1, "--account other"),
        (["create", "--subject", "me"], 2, "--subject"),
        (["revoke", str(uuid4())], 1, "no such key (404 Not Found"),
        (["revoke", "../functions"], 1, "There is no key"),
        (["list", "--api-url", "localhost:8080"], 2, "http://"),
        (["list", "--api-url", "http://127.0.0.1:1"], 1, "http://127.0.0.1:1"),
        (["list", "--api-key", "nvapi-nobody"], 1, "(401 Unauthorized"),
    ],
)
async def test_an_error_over_the_api_is_reported_in_one_line_and_creates_no_key(
    shell: Shell, arguments: list[str], code: int, message: str
) -> None:
    ran = await shell.run("keys", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert ran.err.startswith("gateway: ")
    assert ran.err.count("\n") == 1
    assert await shell.json("keys", "list") == []


async def test_keys_require_the_scope_and_belong_to_the_own_account(
    shell: Shell, plane: IdentityPlane, account: str
) -> None:
    made = await shell.json("keys", "create")
    stranger = holder(shell, await plane.admin(f"other-{uuid4().hex}"))
    plain = holder(shell, await plane.client(account, SCOPES))
    for other, message in ((stranger, "(404 Not Found"), (plain, "account_setup (403 Forbidden")):
        ran = await other.run("keys", "revoke", made["id"])
        assert (ran.code, ran.out) == (1, "")
        assert message in ran.err
        assert ran.err.count("\n") == 1
    assert await stranger.json("keys", "list") == []
    for command in ("create", "list"):
        assert "(403 Forbidden" in (await plain.run("keys", command)).err
    assert await is_valid(plane, made["key"])
