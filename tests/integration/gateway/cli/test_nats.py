"""NATS servers that `gateway nats` has set up: a call passes, and a check finds planted faults."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queueing.nats.accounts.callout_documents import CalloutAccount
from queueing.nats.accounts.jwt import Role, Signer, read_claims, user_credentials
from queueing.nats.accounts.users import CONNECTIONS, KICK
from queueing.nats.admin import JetStreamAdmin
from queueing.nats.jetstream import JetStream, StreamSettings
from queueing.nats.settings import GatewayNatsSettings
from queueing.nats.setup.check import NatsCheck
from queueing.nats.setup.findings import Level
from queueing.nats.setup.folder import Installation
from queueing.nats.setup.keys import RotatedKey
from queueing.nats.setup.plan import accounts_config
from queueing.nats.setup.servers import connected_to
from queueing.settings import QueueSettings
from runtime.ids import new_uuid
from tests.support.nats_server import running_nats_server
from tests.support.nats_setup import (
    Platform,
    SetUpNats,
    nats_command,
    run_command,
    set_up_nats,
)
from wire.subjects import stream_name

RANDOM = bytes(32)


@pytest.mark.timeout(180)  # it starts everything
@pytest.mark.parametrize(("nodes", "options"), [(1, ()), (3, ("--tls",))])
async def test_a_call_passes_and_a_check_is_clean_before_and_after(
    tmp_path: Path, nodes: int, options: tuple[str, ...]
) -> None:
    async with set_up_nats(tmp_path / "nats", *options, nodes=nodes) as nats:
        await nats.whole()
        platform = Platform(nats, tmp_path)
        try:
            await asyncio.to_thread(platform.start)
            await asyncio.to_thread(platform.deploy)
            assert await asyncio.to_thread(platform.call) == 200
            command = ("nats", "check", "--config", str(nats.settings))
            code, output = await asyncio.to_thread(
                run_command, *command, env={"GATEWAY_NATS__CALLOUT": "true"}
            )
            assert (code, output.splitlines()[-1]) == (0, "Nothing to change.")
            assert await streams_of_checks(nats) == []
        finally:
            await asyncio.to_thread(platform.close)


async def streams_of_checks(nats: SetUpNats) -> list[str]:
    """Return the streams that checks have left, of all in the gateway's account."""
    async with connected_to(nats.gateway_options) as connection:
        reply = await connection.request(b"$JS.API.STREAM.NAMES", b"")
    names: list[str] = json.loads(reply.payload)["streams"]
    assert "KV_gateway_keys" in names
    queues = [name for name in names if name.startswith("rq_")]
    assert len(queues) == 1
    return [name for name in names if "check" in name]


# Faults


def configured(old: str, new: str) -> Callable[[SetUpNats], None]:
    """Return what changes the server's configuration."""

    def plant(nats: SetUpNats) -> None:
        text = nats.servers[0].file.read_text()
        assert old in text
        nats.servers[0].file.write_text(text.replace(old, new))

    return plant


def without_jetstream(nats: SetUpNats) -> None:
    text = nats.servers[0].file.read_text()
    before, _, rest = text.partition("jetstream {")
    nats.servers[0].file.write_text(before + rest.partition("}")[2])


def with_resolver_in_memory(nats: SetUpNats) -> None:
    text = nats.servers[0].file.read_text()
    before, _, rest = text.partition("resolver {")
    nats.servers[0].file.write_text(before + "resolver: MEMORY" + rest.partition("}")[2])


def with_account(change: Callable[[dict[str, Any]], object]) -> Callable[[SetUpNats], None]:
    """Return what changes the document of the gateway's account."""

    def plant(nats: SetUpNats) -> None:
        keys = nats.installation.read_keys()
        document = keys.account_documents()[keys.account_id]
        claims = read_claims(document)
        change(claims["nats"])
        changed = Signer(keys.operator_signing).sign(claims)
        text = accounts_config(keys).replace(document, changed)
        (nats.servers[0].directory / "accounts.conf").write_text(text)

    return plant


def without_export(subject: str) -> Callable[[SetUpNats], None]:
    def change(content: dict[str, Any]) -> None:
        exports = content["exports"]
        content["exports"] = [one for one in exports if one["subject"] != subject]
        assert len(content["exports"]) == len(exports) - 1

    return with_account(change)


def with_limits(**limits: int) -> Callable[[SetUpNats], None]:
    return with_account(lambda content: content["limits"].update(limits))


def with_user(**content: object) -> Callable[[SetUpNats], None]:
    """Return what gives the gateway a login with these permissions."""

    def plant(nats: SetUpNats) -> None:
        keys = nats.installation.read_keys()
        login = user_credentials(
            Signer(keys.account_signing),
            "less",
            RANDOM,
            {"issuer_account": keys.account_id, **content},
            keys.at,
        )
        (nats.installation.gateway / "gateway.creds").write_text(login.text())

    return plant


def with_another_operator(nats: SetUpNats) -> None:
    seed = Signer.of(Role.OPERATOR, RANDOM).seed
    (nats.installation.gateway / "operator-signing.nk").write_text(seed)


def with_anybody(nats: SetUpNats) -> None:
    keys = nats.installation.read_keys()
    login = user_credentials(
        Signer(keys.account_signing),
        "anybody",
        RANDOM,
        {"issuer_account": keys.account_id, "bearer_token": True},
        keys.at,
    )
    with nats.servers[0].file.open("a") as file:
        file.write(f"default_sentinel: {login.jwt}\n")


def with_the_gateways_login_for_the_system(nats: SetUpNats) -> None:
    login = (nats.installation.gateway / "gateway.creds").read_text()
    nats.installation.system_credentials.write_text(login)


FAULTS: dict[str, tuple[Callable[[SetUpNats], None], Level, str, str]] = {
    "payload": (
        configured("max_payload: 8388608", "max_payload: 65536"),
        *(Level.ERROR, "nats-1", "max_payload is 64KB"),
    ),
    "jetstream": (without_jetstream, Level.ERROR, "nats-1", "JetStream is off"),
    "memory": (
        configured("max_mem: 2147483648", "max_mem: 1048576"),
        *(Level.ERROR, "nats-1", "max_mem is 1MB"),
    ),
    "disk": (
        configured("max_file: 10737418240", "max_file: 1048576"),
        *(Level.ERROR, "nats-1", "max_file is 1MB"),
    ),
    "sync": (
        configured("sync_interval: always", 'sync_interval: "30s"'),
        *(Level.WARNING, "nats-1", "every 30 s"),
    ),
    "resolver": (
        with_resolver_in_memory,
        *(Level.ERROR, "resolver", "cannot be made: accounts cannot be changed"),
    ),
    "delete": (
        configured("allow_delete: true\n  hard_delete: true", "allow_delete: false"),
        *(Level.ERROR, "resolver", "cannot be removed"),
    ),
    "limit": (
        configured("limit: 1000000", "limit: 2"),
        *(Level.ERROR, "resolver", "cannot be made: accounts cannot be changed"),
    ),
    "anybody": (with_anybody, Level.ERROR, "127.0.0.1", "without a login is let in"),
    "operator": (with_another_operator, Level.ERROR, "nats-1", "does not trust the key"),
    "system": (
        with_the_gateways_login_for_the_system,
        *(Level.ERROR, "nats.system_credentials_file", "no login to the system account"),
    ),
    "polls": (
        without_export("nvcf.polling.*.*"),
        *(Level.ERROR, "gateway's account", "do not reach nvcf.polling.*.* (stream)"),
    ),
    "receipts": (
        without_export("nvcf.polled.*.>"),
        *(Level.ERROR, "gateway's account", "do not reach nvcf.polled.*.> (service)"),
    ),
    "cancels": (
        without_export("nvcf.cancel.*"),
        *(Level.ERROR, "gateway's account", "do not reach nvcf.cancel.* (stream)"),
    ),
    "pulls": (
        without_export("$JS.API.CONSUMER.MSG.NEXT.>"),
        *(Level.ERROR, "gateway's account", "do not reach $JS.API.CONSUMER.MSG.NEXT.>"),
    ),
    "acks": (
        without_export("$JS.ACK.>"),
        *(Level.ERROR, "gateway's account", "do not reach $JS.ACK.> (service)"),
    ),
    "infos": (
        without_export("$JS.API.CONSUMER.INFO.>"),
        *(Level.ERROR, "gateway's account", "do not reach $JS.API.CONSUMER.INFO.>"),
    ),
    "account": (
        with_limits(mem_storage=0, disk_storage=0),
        *(Level.ERROR, "JetStream", "cannot be made"),
    ),
    "streams": (
        with_limits(streams=10),
        *(Level.WARNING, "gateway's account", "0 of 10 (max_streams)"),
    ),
    "bus": (
        with_user(sub={"deny": ["nvcf.holder.>"]}),
        *(Level.ERROR, "gateway's login", "may not use nvcf.holder.*.ffff"),
    ),
    "store": (
        with_user(pub={"deny": ["$KV.>"]}),
        *(Level.ERROR, "gateway's login", "a message for the store is not stored"),
    ),
    "withdrawals": (
        with_user(pub={"deny": ["$JS.API.STREAM.PURGE.>"]}),
        *(Level.ERROR, "gateway's login", "may not use $JS.API.STREAM.PURGE.*"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    plant, level, subject, problem = FAULTS[fault]
    async with set_up_nats(tmp_path / "nats", starts=False) as nats:
        plant(nats)
        await nats.start()
        findings = await nats.check()
    assert [
        one
        for one in findings
        if (one.level, problem in one.problem) == (level, True) and subject in one.subject
    ], findings


def without_sentinel(nats: SetUpNats) -> None:
    keys = nats.installation.read_keys()
    (nats.servers[0].directory / "accounts.conf").write_text(accounts_config(keys))


def with_sentinel_of_another_operator(nats: SetUpNats) -> None:
    without_sentinel(nats)
    other = CalloutAccount(Signer.of(Role.OPERATOR, RANDOM).seed)
    with (nats.servers[0].directory / "accounts.conf").open("a") as file:
        file.write(other.server_config())


def with_system_login_without(subject: str) -> Callable[[SetUpNats], None]:
    """Return what gives the gateway the login of an earlier release."""

    def plant(nats: SetUpNats) -> None:
        keys = nats.installation.read_keys()
        allowed = read_claims(keys.system_login.jwt)["nats"]["pub"]["allow"]
        content = {
            "pub": {"allow": [one for one in allowed if one != subject]},
            "sub": {"allow": ["_INBOX.>"]},
        }
        assert len(content["pub"]["allow"]) == len(allowed) - 1
        login = user_credentials(Signer(keys.system), "less", RANDOM, content, keys.at)
        nats.installation.system_credentials.write_text(login.text())

    return plant


CALLOUT_FAULTS: dict[str, tuple[Callable[[SetUpNats], None], str]] = {
    "none": (lambda _nats: None, ""),
    "no sentinel": (without_sentinel, "not asked about them"),
    "another sentinel": (with_sentinel_of_another_operator, "not asked about them"),
    "connections": (with_system_login_without(CONNECTIONS), f"may not publish to {CONNECTIONS}"),
    "kick": (with_system_login_without(KICK), f"may not publish to {KICK}"),
}


@pytest.mark.parametrize("fault", CALLOUT_FAULTS)
async def test_a_planted_fault_of_the_callout_is_found(tmp_path: Path, fault: str) -> None:
    plant, problem = CALLOUT_FAULTS[fault]
    async with set_up_nats(tmp_path / "nats", starts=False) as nats:
        plant(nats)
        await nats.start()
        findings = await nats.check(NATS__CALLOUT="true")
        assert [one.level for one in findings] == [Level.ERROR] * bool(problem), findings
        assert all(problem in one.problem for one in findings), findings
        # Without the callout nobody needs it.
        assert await nats.check() == []


KILLED_AT_A_RENAME = """
import os, signal, sys
from gateway.cli.nats import app
left = int(sys.argv[1])
def count(event, arguments):
    global left
    if event == "os.rename" and str(arguments[1]).startswith(sys.argv[2]):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
app(["rotate", *sys.argv[2:]])
"""


@pytest.mark.parametrize("end", [(), ("--finish",)], ids=["begun", "ended"])
def test_a_rotation_that_was_killed_is_completed_when_it_is_repeated(
    tmp_path: Path, end: tuple[str, ...]
) -> None:
    nats_command("init", str(tmp_path / "nats"), "--nodes", "3")
    if end:
        nats_command("rotate", str(tmp_path / "nats"), "operator")
    for number in (1, 2, 4):
        # Each file appears by a rename: that of the keys first, then what follows from them.
        copy = Installation(tmp_path / str(number))
        shutil.copytree(tmp_path / "nats", copy.folder)
        before, arguments = copy.read_keys(), (str(copy.folder), "operator", *end)
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AT_A_RENAME, str(number), *arguments], check=False
        )
        assert killed.returncode == -signal.SIGKILL
        assert (copy.read_keys() == before) == (number == 1)
        nats_command("rotate", *arguments)
        keys = copy.read_keys()
        assert keys.begun() is (None if end else RotatedKey.OPERATOR)
        assert copy.write_keys(keys) == []
    assert not list(tmp_path.rglob("*.part"))


async def test_settings_that_do_not_fit_are_found_and_end_with_exit_code_1(tmp_path: Path) -> None:
    async with set_up_nats(tmp_path / "nats") as nats:
        for settings, level, problem in (
            ({"STORE__REPLICAS": "3"}, Level.ERROR, "a bucket of the store cannot be made"),
            ({"QUEUE__REPLICAS": "3"}, Level.ERROR, "a queue cannot be made"),
            (
                {"NATS__URLS": f"{nats.installation.urls[0]},nats://127.0.0.1:1"},
                *(Level.ERROR, "no connection"),
            ),
        ):
            findings = await nats.check(**settings)
            assert [(one.level, problem in one.problem) for one in findings] == [(level, True)]
        command = ("nats", "check", "--config", str(nats.settings), "--json")
        code, output = await asyncio.to_thread(
            run_command, *command, env={"GATEWAY_STORE__REPLICAS": "3"}
        )
        assert code == 1
        assert [one["level"] for one in json.loads(output)["findings"]] == ["error"]
        assert json.loads(output)["servers"][0]["name"] == "nats-1"


async def test_what_a_cluster_lacks_is_found(tmp_path: Path) -> None:
    async with set_up_nats(tmp_path / "nats", nodes=3) as nats:
        await nats.whole()
        one = {"NATS__URLS": nats.installation.urls[0], "STORE__REPLICAS": "1"}
        found = await nats.check(**one)
        assert {finding.level for finding in found} == {Level.WARNING}
        assert any("names one of 3 servers" in finding.problem for finding in found)
        assert any("store.replicas is 1" in finding.problem for finding in found)
        async with connected_to(nats.gateway_options) as connection:
            # As a gateway with store.replicas = 1 has made it.
            bucket = {"name": "KV_gateway_keys", "subjects": ["$KV.gateway_keys.>"]}
            await connection.request(
                b"$JS.API.STREAM.CREATE.KV_gateway_keys", json.dumps(bucket).encode()
            )
            (found,) = await nats.check()
            assert (found.level, found.subject) == (Level.WARNING, "KV_gateway_keys")
            await connection.request(b"$JS.API.STREAM.DELETE.KV_gateway_keys", b"")
        await nats.servers[2].kill()
        found = await nats.check()
        assert any("2 of 3 servers respond" in finding.problem for finding in found)
        code, output = await asyncio.to_thread(run_command, "nats", "push", nats.folder)
        assert (code, "2 of 3 servers have responded" in output) == (0, True), output


async def test_a_region_without_servers_is_found(tmp_path: Path) -> None:
    async with set_up_nats(tmp_path / "nats", nodes=3, starts=False) as nats:
        for server, region in zip(nats.servers, ("eu", "us", "us"), strict=True):
            tags = f'server_tags: ["region:{region}"]\n'
            server.file.write_text(tags + server.file.read_text())
        await nats.start()
        await nats.whole()
        settings = {"NATS__REGION_TAG": "region", "QUEUE__REGION": "eu", "QUEUE__REPLICAS": "1"}
        assert await nats.check(**settings, QUEUE__OTHER_REGIONS="us") == []
        (found,) = await nats.check(**settings, QUEUE__OTHER_REGIONS="us,ap")
        assert (found.level, found.subject) == (Level.ERROR, "region ap")
        assert 'server_tags: ["region:ap"]' in found.change
        version = new_uuid()
        async with connected_to(nats.gateway_options) as connection:
            # A region that is away keeps no worker of another from its queues.
            tagged = StreamSettings(region_tag="region")
            await JetStreamAdmin(connection, ["eu", "ap", "us"], tagged).ensure(version)
            leaders = {}
            for region in ("eu", "us"):
                operation = f"STREAM.INFO.{stream_name(region, version)}"
                found_stream = await JetStream(connection).call(operation, {})
                leaders[region] = found_stream["cluster"]["leader"]
        assert leaders["eu"] == "nats-1"
        assert leaders["us"] in ("nats-2", "nats-3")


async def test_servers_with_a_password_are_usable_but_do_not_confine_workers() -> None:
    login = "authorization { user: gateway, password: secret }\nmax_payload: 8MB\n"
    async with running_nats_server(login) as server:
        url = f"nats://gateway:secret@127.0.0.1:{server.port}"
        nats = GatewayNatsSettings(urls=(url,))
        findings = (await NatsCheck(nats, QueueSettings(), None).run()).findings
        assert [one.level for one in findings] == [Level.WARNING]
        assert "no logins of their own" in findings[0].problem
        wrong = GatewayNatsSettings(urls=(url.replace("secret", "guess"),))
        (found,) = (await NatsCheck(wrong, QueueSettings(), None).run()).findings
        assert (found.level, found.subject) == (Level.ERROR, f"nats://127.0.0.1:{server.port}")
