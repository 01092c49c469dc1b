"""The whole store as a dump file of JSON lines, for export and import.

The first line identifies the format, the last one says how many entries are between them, so that
a truncated file is detected. Each entry is ``{"bucket", "name", "document"}``. Transient records
are left out: instances, the leader lease, registrations in progress. Secrets remain sealed, and
keys are digests.

Buckets are read one after the other while gateways keep running: a version that is deleted
meanwhile may be in the file without its details.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.app.object_parts import KEY_NAME, SWEEP_NAME
from gateway.cli.errors import CommandError
from gateway.domain.documents import SCHEMA, RecordError
from gateway.errors import Conflict
from gateway.store.names import (
    ACCOUNTS,
    DETAILS,
    FUNCTIONS,
    KEYS,
    META,
    PROCESSES,
    RESERVED,
    SECRETS,
    record_at,
)
from gateway.store.records import Store

FORMAT = "gateway-store"
VERSION = 1
_TRANSIENT = frozenset({"leader", KEY_NAME, SWEEP_NAME})
"""Made anew where they are missing; the key signs URLs that last some hours at most."""
BUCKETS = (META, ACCOUNTS, KEYS, SECRETS, DETAILS, FUNCTIONS)
"""In the order of writing: a version is written after everything that it refers to."""
MAX_LINE_BYTES = 8 << 20

EntryKey = tuple[str, str]
"""Bucket and name."""


@dataclass(slots=True)
class Report:
    """How many entries were handled, and the names of those that could not be read."""

    written: int = 0
    unchanged: int = 0
    replaced: int = 0
    unreadable: list[str] = field(default_factory=list)


async def export_store(store: Store, file: Path, now: str) -> Report:
    """Write the store to ``file``, readable by its owner only.

    ``now`` is the time of the export. An existing file is replaced once the dump is complete.
    Raises `StoreUnavailable`, `OSError`.
    """
    report = Report()
    part = file.with_name(f"{file.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(_encode_line({"format": FORMAT, "version": VERSION, "exportedAt": now}))
            for bucket in BUCKETS:
                for key, document in await _read_bucket(store, bucket, report):
                    out.write(_encode_line(_entry(key, document)))
                    report.written += 1
            out.write(_encode_line({"entries": report.written}))
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return report


async def import_store(store: Store, file: Path, *, replace: bool) -> Report:
    """Write the entries of ``file`` to the store.

    Raises `CommandError`, `StoreUnavailable`, `OSError`.

    Nothing is written unless every document is readable, and every entry that the store already
    has is equal, or ``replace`` is true. Entries of the store that the file lacks are kept.
    """
    entries = read_dump(file)
    report = Report()
    steps: list[tuple[EntryKey, bytes, int]] = []
    differing: list[str] = []
    for bucket in BUCKETS:
        present = {entry.name: entry for entry in await store.entries(bucket)}
        for (_, name), document in _entries_of(entries, bucket):
            stored = present.get(name)
            if stored is None:
                steps.append(((bucket, name), orjson.dumps(document), 0))
            elif _parse_object(stored.data or b"") == document:
                report.unchanged += 1
            else:
                differing.append(f"{bucket}/{name}")
                steps.append(((bucket, name), orjson.dumps(document), stored.revision))
    if differing and not replace:
        raise CommandError(
            f"{len(differing)} entries differ from those in the store, such as {differing[0]}; "
            "nothing was written. Overwrite them with --replace."
        )
    for key, data, revision in steps:
        try:
            await store.put_raw(*key, data, revision)
        except Conflict:
            raise CommandError(
                f"{'/'.join(key)} was changed meanwhile; {report.written} of {len(steps)} "
                "entries were written. Import again."
            ) from None
        report.written += 1
    report.replaced = len(differing)
    return report


def read_dump(file: Path) -> dict[EntryKey, Mapping[str, Any]]:
    """Return the checked entries of ``file``. Raises `CommandError`, `OSError`."""
    entries: dict[EntryKey, Mapping[str, Any]] = {}
    end: object = None
    with file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), 1):
            members = _parse_object(line)
            if members is None:
                raise CommandError(f"{file}:{number}: not a JSON object")
            if end is not None:
                raise CommandError(f"{file}:{number}: data after the last line")
            if number == 1:
                _check_head(file, members)
            elif "entries" in members:
                end = members["entries"]
            else:
                key, document = _read_entry(file, number, members)
                entries[key] = document
    if end != len(entries):
        raise CommandError(f"{file} is incomplete: {len(entries)} entries, {end} announced")
    return entries


async def _read_bucket(
    store: Store, bucket: str, report: Report
) -> list[tuple[EntryKey, Mapping[str, Any]]]:
    """Return the entries of a bucket, deployments after the versions that they refer to."""
    found = []
    for name, data, _ in await store.entries(bucket):
        if _is_transient(bucket, name):
            continue
        document = _parse_object(data or b"")
        if document is None or not _is_readable(bucket, name, data or b"", document):
            report.unreadable.append(f"{bucket}/{name}")
            continue
        found.append(((bucket, name), document))
    return sorted(found, key=lambda entry: (entry[0][1].startswith("deployment."), entry[0]))


def _entries_of(
    entries: Mapping[EntryKey, Mapping[str, Any]], bucket: str
) -> Iterator[tuple[EntryKey, Mapping[str, Any]]]:
    return (entry for entry in entries.items() if entry[0][0] == bucket)


def _check_head(file: Path, members: Mapping[str, Any]) -> None:
    if members.get("format") != FORMAT:
        raise CommandError(f"{file} is not an export of a store")
    if members.get("version") != VERSION:
        raise CommandError(
            f"{file} has version {members.get('version')!r}; this program reads {VERSION}"
        )


def _read_entry(
    file: Path, number: int, members: Mapping[str, Any]
) -> tuple[EntryKey, Mapping[str, Any]]:
    bucket, name, document = (members.get(member) for member in ("bucket", "name", "document"))
    if bucket not in BUCKETS or not isinstance(name, str) or not isinstance(document, dict):
        raise CommandError(f"{file}:{number}: not an entry")
    if _is_transient(bucket, name):
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


def _is_transient(bucket: str, name: str) -> bool:
    return bucket == META and (name in _TRANSIENT or name.startswith((RESERVED, PROCESSES)))


def _is_readable(bucket: str, name: str, data: bytes, document: Mapping[str, Any]) -> bool:
    if bucket == META:
        return document.get("schema") == SCHEMA
    try:
        record_at(bucket, name, data)
    except RecordError:
        return False
    return True


def _entry(key: EntryKey, document: Mapping[str, Any]) -> dict[str, object]:
    return {"bucket": key[0], "name": key[1], "document": document}


def _parse_object(data: bytes) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _encode_line(members: Mapping[str, object]) -> bytes:
    return orjson.dumps(members) + b"\n"
