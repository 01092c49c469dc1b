"""Stored documents: JSON with ``"schema": 1``, and typed access to their members.

A document of another schema is refused: a key or a state that is partly understood is worse than a
missing one. Unknown members are ignored, so that a later release can add members without a new
schema.
"""

from collections.abc import Mapping
from typing import cast

import orjson

from wire.ids import parse_uuid

SCHEMA = 1

EMPTY: frozenset[str] = frozenset()
"""Shared by all records without such texts, to save memory."""


class RecordError(ValueError):
    """A stored document that this program cannot read."""


class Document:
    """Typed access to the members of one document.

    Each method raises `RecordError` if the member is missing or has another type.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, object]) -> None:
        self._members = members

    def has(self, name: str) -> bool:
        return self._members.get(name) is not None

    def names(self) -> list[str]:
        return list(self._members)

    def text(self, name: str) -> str:
        value = self._members.get(name)
        if not isinstance(value, str):
            raise RecordError(f"{name} is not a text")
        return value

    def text_or_empty(self, name: str) -> str:
        """Return a text that documents of earlier releases do not have."""
        return self.text(name) if self.has(name) else ""

    def uuid(self, name: str) -> str:
        value = parse_uuid(self.text(name).encode())
        if value is None:
            raise RecordError(f"{name} is not a UUID")
        return value

    def number(self, name: str) -> int:
        value = self._members.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RecordError(f"{name} is not an integer")
        return value

    def number_or_none(self, name: str) -> int | None:
        return self.number(name) if self.has(name) else None

    def value(self, name: str) -> object:
        """Return a member that may be of any type but null."""
        if not self.has(name):
            raise RecordError(f"{name} is missing")
        return self._members[name]

    def flag(self, name: str) -> bool:
        value = self._members.get(name)
        if not isinstance(value, bool):
            raise RecordError(f"{name} is not true or false")
        return value

    def flag_or_false(self, name: str) -> bool:
        """Return a flag that documents of earlier releases do not have."""
        return self.flag(name) if self.has(name) else False

    def ordered_texts(self, name: str) -> tuple[str, ...]:
        value = self._members.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise RecordError(f"{name} is not a list of texts")
        return tuple(value)

    def texts(self, name: str) -> frozenset[str]:
        return frozenset(self.ordered_texts(name)) or EMPTY

    def mapping(self, name: str) -> Mapping[str, object]:
        value = self._members.get(name)
        if not isinstance(value, dict):
            raise RecordError(f"{name} is not an object")
        return cast("Mapping[str, object]", value)

    def mapping_or_empty(self, name: str) -> Mapping[str, object]:
        """Return an object that documents of earlier releases do not have."""
        return self.mapping(name) if self.has(name) else {}

    def part(self, name: str) -> "Document":
        return Document(self.mapping(name))

    def objects(self, name: str) -> list[Mapping[str, object]]:
        value = self._members.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise RecordError(f"{name} is not a list of objects")
        return cast("list[Mapping[str, object]]", value)


def read(data: bytes) -> Document:
    """Return the document in ``data``.

    Raises `RecordError` if it is not a JSON object or has another schema.
    """
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RecordError("not a JSON document") from error
    if not isinstance(parsed, dict):
        raise RecordError("not a JSON object")
    document = Document(parsed)
    schema = document.number("schema")
    if schema != SCHEMA:
        raise RecordError(f"schema is {schema}, this program reads {SCHEMA}")
    return document
