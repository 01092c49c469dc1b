"""The whole store as one file of JSON lines, and back.

The first line says what the file is, the last one how many entries stand between them, each as
``{"bucket", "name", "document"}``: a file that was cut short is seen as such. Left out is what
tells of the moment only: instances, who leads, what is being registered. Secrets stay sealed, keys
are digests.

Buckets are read one after the other while the gateways go on: a version that was deleted meanwhile
may be in the file without its details.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.cli.failures import CommandError
from gateway.domain.documents import SCHEMA, RecordError
from gateway.errors import Conflict
from gateway.store.names import (
    ACCOUNTS,
    DETAILS,
    FUNCTIONS,
    KEYS,
    META,
    RESERVED,
    SECRETS,
    record_at,
)
from gateway.store.nats_kv import Store

FORMAT = "gateway-store"
VERSION = 1
BUCKETS = (META, ACCOUNTS, KEYS, SECRETS, DETAILS, FUNCTIONS)
"""In the order in which they are written: a version appears when all that is of it is there."""
MAX_LINE_BYTES = 8 << 20

Place = tuple[str, str]
"""Bucket and name."""


@dataclass(slots=True)
class Report:
    """What was done, and the names of entries that could not be read."""

    written: int = 0
    unchanged: int = 0
    replaced: int = 0
    unreadable: list[str] = field(default_factory=list)


async def export_store(store: Store, file: Path, now: str) -> Report:
    """Write everything into ``file``, which is replaced at the end.

    Raises `StoreUnavailable`, `OSError`. The file is for the owner's eyes alone.
    """
    report = Report()
    part = file.with_name(f"{file.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(_line({"format": FORMAT, "version": VERSION, "exportedAt": now}))
            for bucket in BUCKETS:
                for place, document in await _documents(store, bucket, report):
                    out.write(_line(_entry(place, document)))
                    report.written += 1
            out.write(_line({"entries": report.written}))
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return report


async def import_store(store: Store, file: Path, *, replace: bool) -> Report:
    """Write what is in ``file`` into the store.

    Raises `CommandError`, `StoreUnavailable`, `OSError`.

    Nothing is written unless all of it can be: every document is understood, and what is there
    already is the same, or may be replaced. What the file does not have stays as it is.
    """
    entries = read_archive(file)
    report = Report()
    steps: list[tuple[Place, bytes, int]] = []
    differing: list[str] = []
    for bucket in BUCKETS:
        present = {entry.name: entry for entry in await store.entries(bucket)}
        for (_, name), document in _of_bucket(entries, bucket):
            there = present.get(name)
            if there is None:
                steps.append(((bucket, name), orjson.dumps(document), 0))
            elif _loaded(there.data or b"") == document:
                report.unchanged += 1
            else:
                differing.append(f"{bucket}/{name}")
                steps.append(((bucket, name), orjson.dumps(document), there.revision))
    if differing and not replace:
        raise CommandError(
            f"{len(differing)} entries are in the store and differ, {differing[0]} for one; "
            "nothing was written. --replace writes over them."
        )
    for place, data, revision in steps:
        try:
            await store.put_raw(*place, data, revision)
        except Conflict:
            raise CommandError(
                f"{'/'.join(place)} was changed meanwhile; {report.written} of {len(steps)} "
                "entries are written. Import again."
            ) from None
        report.written += 1
    report.replaced = len(differing)
    return report


def read_archive(file: Path) -> dict[Place, Mapping[str, Any]]:
    """Return what is in ``file``, all of it checked. Raises `CommandError`, `OSError`."""
    entries: dict[Place, Mapping[str, Any]] = {}
    end: object = None
    with file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), 1):
            members = _loaded(line)
            if members is None:
                raise CommandError(f"{file}:{number}: not a JSON object")
            if end is not None:
                raise CommandError(f"{file}:{number}: more after the end")
            if number == 1:
                _check_head(file, members)
            elif "entries" in members:
                end = members["entries"]
            else:
                place, document = _checked(file, number, members)
                entries[place] = document
    if end != len(entries):
        raise CommandError(f"{file} is not complete: {len(entries)} entries, {end} announced")
    return entries


async def _documents(
    store: Store, bucket: str, report: Report
) -> list[tuple[Place, Mapping[str, Any]]]:
    """Return what is in a bucket, deployments behind the details that they need."""
    found = []
    for name, data, _ in await store.entries(bucket):
        if _is_of_the_moment(bucket, name):
            continue
        document = _loaded(data or b"")
        if document is None or not _is_ours(bucket, name, data or b"", document):
            report.unreadable.append(f"{bucket}/{name}")
            continue
        found.append(((bucket, name), document))
    return sorted(found, key=lambda entry: (entry[0][1].startswith("deployment."), entry[0]))


def _of_bucket(
    entries: Mapping[Place, Mapping[str, Any]], bucket: str
) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    return (entry for entry in entries.items() if entry[0][0] == bucket)


def _check_head(file: Path, members: Mapping[str, Any]) -> None:
    if members.get("format") != FORMAT:
        raise CommandError(f"{file} is not an export of a gateway's store")
    if members.get("version") != VERSION:
        raise CommandError(
            f"{file} has version {members.get('version')!r}; this program reads {VERSION}"
        )


def _checked(
    file: Path, number: int, members: Mapping[str, Any]
) -> tuple[Place, Mapping[str, Any]]:
    bucket, name, document = (members.get(key) for key in ("bucket", "name", "document"))
    if bucket not in BUCKETS or not isinstance(name, str) or not isinstance(document, dict):
        raise CommandError(f"{file}:{number}: not an entry")
    if _is_of_the_moment(bucket, name):
        raise CommandError(f"{file}:{number}: {bucket}/{name} is never exported")
    if bucket == META:
        if document.get("schema") != SCHEMA:
            raise CommandError(
                f"{file}:{number}: schema is {document.get('schema')!r}, this program reads "
                f"{SCHEMA}; nothing was written"
            )
    else:
        try:
            record_at(bucket, name, orjson.dumps(document))
        except RecordError as error:
            raise CommandError(f"{file}:{number}: {error}; nothing was written") from None
    return (bucket, name), document


def _is_of_the_moment(bucket: str, name: str) -> bool:
    return bucket == META and (name == "leader" or name.startswith(RESERVED))


def _is_ours(bucket: str, name: str, data: bytes, document: Mapping[str, Any]) -> bool:
    if bucket == META:
        return document.get("schema") == SCHEMA
    try:
        record_at(bucket, name, data)
    except RecordError:
        return False
    return True


def _entry(place: Place, document: Mapping[str, Any]) -> dict[str, object]:
    return {"bucket": place[0], "name": place[1], "document": document}


def _loaded(data: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _line(members: Mapping[str, object]) -> bytes:
    return orjson.dumps(members) + b"\n"
