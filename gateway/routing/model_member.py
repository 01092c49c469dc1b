"""Finds the member ``model`` of a JSON object while its bytes arrive (RFC 8259).

Reads no further than to the end of that member's value, however long the body is, and builds no
value but that one: what is nested is skipped by regular expressions. The work of one body is
bounded by `MAX_BYTES`, `MAX_NESTED` and `MAX_MEMBERS`.
"""

import json
import re
from collections.abc import Callable, Generator
from typing import NamedTuple

from gateway.errors import BadRequest

MAX_BYTES = 16_777_216
"""Bytes in which the end of the member must be. SDKs write it after the messages, images included.
"""
MAX_NESTED = 40_000
"""Brackets and braces before it, in other members."""
MAX_MEMBERS = 1000
"""Other members before it."""
MAX_MODEL_BYTES = 1024


def _matcher(pattern: bytes) -> Callable[[bytearray, int], re.Match[bytes]]:
    """Return ``match(held, at)`` of a pattern that matches everywhere, if only nothing.

    No match may live on: ``held`` cannot grow while one refers to it.
    """
    return re.compile(pattern, re.DOTALL).match  # type: ignore[return-value]


_space = _matcher(rb"[ \t\r\n]*+")
_plain = _matcher(rb"[-+.0-9A-Za-z]*+")
"""A number, true, false or null. Whether it is one, the function finds out."""
_string = _matcher(rb"""(?:[^"\\]++|\\.)*+""")
"""The inside of a string, from its first byte to the closing quote or the end of what is there."""
_flat = _matcher(rb"""(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+""")
"""What is between two brackets: anything else, whole strings included."""

_QUOTE, _COLON, _COMMA, _OPEN, _CLOSE = b'":,{}'
_OPENING = frozenset(b"[{")
_KEY = b"model"
_MAX_KEY_BYTES = 6 * len(_KEY)
"""The key with all of its letters as escapes."""

Scan = Generator[None, None, "Member | None"]
Reading = Generator[None, None, int]


class Member(NamedTuple):
    """The value of ``model``, and where it is in the body: ``body[start:end]``, quotes included."""

    text: str
    start: int
    end: int


class ModelMember:
    """Looks for the member in the bytes that are added to ``held``."""

    __slots__ = ("_is_complete", "_nested", "_scan", "found", "held")

    def __init__(self) -> None:
        self.held = bytearray()
        self.found: Member | None = None
        self._is_complete = False
        self._nested = 0
        self._scan = self._read()

    def add(self, data: bytes) -> bool:
        """Take the next bytes; return whether the member is ``found``.

        Raises `BadRequest` if the body is no JSON object with this member, or has it too late.
        """
        self.held += data
        if self._is_found():
            return True
        if len(self.held) > MAX_BYTES:
            raise BadRequest(f"{_MISSING} in its first {MAX_BYTES} bytes")
        return False

    def end(self) -> None:
        """The body is complete. Raises `BadRequest` if the member is not there."""
        self._is_complete = True
        if self.found is None and not self._is_found():
            raise BadRequest(_NOT_JSON)

    def _is_found(self) -> bool:
        try:
            next(self._scan)
        except StopIteration as stop:
            self.found = stop.value
            if self.found is None:
                raise BadRequest(_MISSING) from None
            return True
        return False

    def _read(self) -> Scan:
        held = self.held
        at = yield from self._expect(_OPEN, 0)
        for _ in range(MAX_MEMBERS + 1):
            at = yield from self._token(at)
            if held[at] == _CLOSE:
                return None
            start, at = at, (yield from self._string(at))
            is_model = _is_model(held, start, at)
            at = yield from self._expect(_COLON, at)
            start = yield from self._token(at)
            at = yield from self._value(start)
            if is_model:
                return _member(held, start, at)
            at = yield from self._token(at)
            if held[at] == _CLOSE:
                return None
            if held[at] != _COMMA:
                raise BadRequest(_NOT_JSON)
            at += 1
        raise BadRequest(f"{_MISSING} among its first {MAX_MEMBERS} members")

    def _token(self, at: int) -> Reading:
        """Return where the next token begins."""
        held = self.held
        while True:
            at = _space(held, at).end()
            if at < len(held):
                return at
            yield from self._wait()

    def _expect(self, byte: int, at: int) -> Reading:
        at = yield from self._token(at)
        if self.held[at] != byte:
            raise BadRequest(_NOT_JSON)
        return at + 1

    def _string(self, at: int) -> Reading:
        """Return the end of the string that begins at ``at``."""
        held = self.held
        if held[at] != _QUOTE:
            raise BadRequest(_NOT_JSON)
        at += 1
        while True:
            at = _string(held, at).end()
            if at < len(held) and held[at] == _QUOTE:
                return at + 1
            yield from self._wait()

    def _value(self, at: int) -> Reading:
        """Return the end of the value that begins at ``at``."""
        held = self.held
        if held[at] == _QUOTE:
            return (yield from self._string(at))
        if held[at] in _OPENING:
            return (yield from self._nested_value(at + 1))
        start = at
        while True:
            at = _plain(held, at).end()
            if at == start:
                raise BadRequest(_NOT_JSON)
            if at < len(held):
                return at
            yield from self._wait()

    def _nested_value(self, at: int) -> Reading:
        held, nested = self.held, self._nested
        depth = 1
        while depth:
            at = _flat(held, at).end()
            if at == len(held):
                yield from self._wait()
            elif held[at] == _QUOTE:
                at = yield from self._string(at)
            else:
                nested += 1
                if nested > MAX_NESTED:
                    raise BadRequest(f"{_MISSING} before its first {MAX_NESTED} brackets")
                depth += 1 if held[at] in _OPENING else -1
                at += 1
        self._nested = nested
        return at

    def _wait(self) -> Generator[None, None, None]:
        if self._is_complete:
            raise BadRequest(_NOT_JSON)
        yield


_NOT_JSON = "The body is not a JSON object that names a function as its model"
_MISSING = "The body has no model that names a function"


def _is_model(held: bytearray, start: int, end: int) -> bool:
    inside = held[start + 1 : end - 1]
    if inside == _KEY:
        return True
    return 0x5C in inside and len(inside) <= _MAX_KEY_BYTES and _text(held[start:end]) == "model"


def _member(held: bytearray, start: int, end: int) -> Member:
    if held[start] != _QUOTE or end - start > MAX_MODEL_BYTES:
        raise BadRequest(f"The body's model is not a text of up to {MAX_MODEL_BYTES} bytes")
    return Member(_text(held[start:end]), start, end)


def _text(token: bytearray) -> str:
    """Return the text of a JSON string. Raises `BadRequest` if it is not one."""
    try:
        return str(json.loads(token))
    except ValueError:
        raise BadRequest(_NOT_JSON) from None
