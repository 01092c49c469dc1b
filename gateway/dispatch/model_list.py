"""The functions that a caller may call, in the form of OpenAI's list of models."""

from collections.abc import Iterator
from datetime import datetime

import orjson

from gateway.domain.principal import Principal
from gateway.domain.readmodel import FunctionEntry
from gateway.routing.references import FunctionNames, is_invocable

_NAMES_PER_PART = 64
"""Names that are looked up in one turn of the event loop."""


def model_list(names: FunctionNames, principal: Principal) -> Iterator[bytes]:
    """Return the parts of the list; a part may be empty.

    A function is listed by its name if that names no other function, else by its id. Functions
    that cannot be invoked now are left out.
    """
    yield b'{"object":"list","data":['
    listed: set[str] = set()
    part: list[bytes] = []
    comma = b""
    for number, name in enumerate(names.seen_names(principal), 1):
        meant = names.callable_ids(name, principal)
        for function_id, entry in names.candidates(name, principal):
            if function_id in listed or not is_invocable(entry, principal):
                continue
            listed.add(function_id)
            part += [comma, _model(name if meant == [function_id] else function_id, entry)]
            comma = b","
        if not number % _NAMES_PER_PART:
            yield b"".join(part)
            part.clear()
    yield b"".join(part) + b"]}"


def model_of(names: FunctionNames, function_id: str, principal: Principal) -> bytes | None:
    """Return one element of the list, `None` if it is not in it."""
    entry = names.entry(function_id)
    if entry is None or not is_invocable(entry, principal):
        return None
    for name in dict.fromkeys(version.name for version in entry.versions.values()):
        if names.callable_ids(name, principal) == [function_id]:
            return _model(name, entry)
    return _model(function_id, entry)


def _model(name: str, entry: FunctionEntry) -> bytes:
    created = min((version.created_at for version in entry.versions.values()), default="")
    return orjson.dumps(
        {
            "id": name,
            "object": "model",
            "created": int(datetime.fromisoformat(created).timestamp()) if created else 0,
            "owned_by": entry.account or "",
        }
    )
