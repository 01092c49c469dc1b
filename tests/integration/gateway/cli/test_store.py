"""``gateway store export`` and ``import`` against real stores."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.auth.keys import digest_of
from gateway.cli.program import app
from gateway.domain.model import (
    Account,
    ApiKey,
    Client,
    ClientKey,
    Function,
    FunctionVersion,
    Phase,
    Record,
    Secrets,
    VersionDetails,
    VersionState,
)
from tests.integration.gateway.cli.filled_store import Filled, opened
from tests.integration.gateway.cli.shell import Ran
from tests.support.deployments import FUNCTION_ID, VERSION_ID, deployment, instance
from tests.support.nats_server import NatsServer
from tests.support.store_servers import StoreServer, running_store_server, store_server

__all__ = ["store_server"]

IDS = FUNCTION_ID, VERSION_ID, "acme"
RECORDS: tuple[Record, ...] = (
    Function(FUNCTION_ID, "acme", frozenset({"other"})),
    FunctionVersion(*IDS, "echo", VersionState.ACTIVE, created_at="2026-01-01T00:00:00.000000Z"),
    VersionDetails(*IDS, "2026-01-01T00:00:00.000000Z", {"name": "echo"}, ("token",)),
    deployment(),
    Account("acme", "Acme", 7),
    Account("with blank", "Other"),
    Client("client", "acme"),
    ApiKey("k1", digest_of(b"one"), "acme", "me", frozenset({"invoke_function"})),
    Secrets(*IDS, b"\x00sealed"),
)
BOOTSTRAP = {"schema": 1, "kind": "bootstrap", "digest": "00" * 32, "created_at": ""}


def run(*arguments: object, url: str) -> Ran:
    result = CliRunner().invoke(app, ["store", *map(str, arguments), "--store-url", url])
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
async def filled(store_server: StoreServer) -> AsyncIterator[Filled]:
    async with opened(store_server) as filled:
        for record in (*RECORDS, instance(phase=Phase.RUNNING)):
            await filled.store.put(record)
        for name, document in (
            ("bootstrap", BOOTSTRAP),
            ("leader", {"owner": "x"}),
            ("reserved.acme", {"schema": 1, "kind": "reserved", "until": {FUNCTION_ID: 1}}),
        ):
            await filled.store.put_raw("meta", name, json.dumps(document).encode())
        yield filled


@pytest.fixture
async def empty(store_server: StoreServer) -> AsyncIterator[Filled]:
    """An empty store at the other backend: what is exported from one fits the other."""
    other = "valkey" if isinstance(store_server, NatsServer) else "nats"
    async with running_store_server(other) as server, opened(server) as empty:
        yield empty


async def shell(*arguments: object, url: str) -> Ran:
    return await asyncio.to_thread(run, *arguments, url=url)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_everything_except_transient_records_is_exported_and_imported(
    filled: Filled, empty: Filled, tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    transient = {"process.0001": b"{}", "objects.key": bytes(32), "objects.sweep": b'{"at":1}'}
    for name, document in transient.items():
        await filled.store.put_raw("meta", name, document)
    ran = await shell("export", file, url=filled.url)
    for name in transient:
        await filled.store.delete_raw("meta", name)
    assert (ran.code, ran.out) == (0, ""), ran
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path) == [file.name]
    ran = await shell("import", file, "--json", url=empty.url)
    assert ran.code == 0, ran
    assert json.loads(ran.out) == {"written": len(RECORDS) + 1, "replaced": 0, "unchanged": 0}
    expected = await filled.contents()
    assert expected.pop("meta/leader")
    assert expected.pop("meta/reserved.acme")
    assert await empty.contents() == expected
    assert await empty.store.entries("instances") == []
    again = await shell("import", file, "--json", url=empty.url)
    assert json.loads(again.out)["unchanged"] == len(RECORDS) + 1


async def test_differing_entries_are_replaced_only_with_replace(
    filled: Filled, tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    await shell("export", file, url=filled.url)
    before = await filled.contents()
    await filled.store.put(Account("acme", "Renamed"))
    await filled.store.delete(ClientKey("client"))
    changed = await filled.contents()
    ran = await shell("import", file, url=filled.url)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "accounts/account.acme" in ran.err
    assert await filled.contents() == changed
    ran = await shell("import", file, "--replace", url=filled.url)
    assert ran.code == 0
    assert "2 entries were written, of which 1 replaced others" in ran.err
    assert await filled.contents() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: [*lines[:3], lines[3].replace('"schema":1', '"schema":2'), *lines[4:]],
            "schema is 2",
        ),
        (lambda lines: [lines[0].replace('"version":1', '"version":9'), *lines[1:]], "version 9"),
        (lambda lines: lines[:-1], "is incomplete"),
        (lambda lines: [*lines[:2], *lines[3:]], "is incomplete"),
        (lambda lines: [*lines[:2], lines[2][:20], *lines[3:]], "not a JSON object"),
        (lambda lines: ['{"bucket":"keys"}', *lines[1:]], "not an export"),
        (
            lambda lines: [*lines[:2], lines[2].replace('"name":"', '"name":"other-'), *lines[3:]],
            "belongs under another name",
        ),
        (lambda lines: [], "is incomplete"),
    ],
)
async def test_an_invalid_file_is_refused_as_a_whole(
    filled: Filled, empty: Filled, tmp_path: Path, change: Any, message: str
) -> None:
    file = tmp_path / "all.jsonl"
    await shell("export", file, url=filled.url)
    file.write_text("\n".join(change(file.read_text().splitlines())))
    ran = await shell("import", file, url=empty.url)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert await empty.contents() == {}


async def test_an_unreadable_entry_is_named_and_the_rest_exported(
    filled: Filled, tmp_path: Path
) -> None:
    await filled.store.put_raw("keys", "new", b'{"schema":2}')
    file = tmp_path / "all.jsonl"
    ran = await shell("export", file, url=filled.url)
    assert ran.code == 1
    assert "keys/new" in ran.err
    assert len(file.read_text().splitlines()) == len(RECORDS) + 1 + 2


async def test_missing_files_and_stores_are_reported_in_one_line(
    filled: Filled, tmp_path: Path
) -> None:
    for code, ran in (
        (2, await shell("import", tmp_path / "nowhere", url=filled.url)),
        (2, await shell("export", tmp_path / "no" / "folder", url=filled.url)),
        (1, await shell("export", tmp_path / "file", url="nats://127.0.0.1:1")),
        (1, await shell("export", tmp_path / "file", url="redis://127.0.0.1:1")),
        (2, await shell("export", tmp_path / "file", url="http://127.0.0.1:1")),
    ):
        assert ran.code == code
        assert ran.err.count("\n") == 1
