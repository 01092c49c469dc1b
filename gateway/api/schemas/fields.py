"""Base models of bodies, and types of members that several bodies share.

Members are camelCase on the wire. A null member counts as absent, except `rateLimit` of
`UpdateMetadata`; unknown members of a request are ignored except in a `StrictBody`, and values of
enumerations are accepted in any case (`docs/wire.md` §9.1).
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from runtime.text_rules import text_rule

MAX_NAME_CHARS = 64
"""Characters of a name that a caller chose which an error repeats."""
_MAX_NAMES = 8
"""Unknown members that an error names."""

Item = TypeVar("Item")


class Body(BaseModel):
    """A request body, or a part of one. Errors do not show rejected values."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        strict=True,
        frozen=True,
        # Most processes use few of the models.
        defer_build=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="null",
    )


class StrictBody(Body):
    """A part of a request body that names no member which it does not have.

    For rules: a misspelt member would be one that nobody enforces.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    @model_validator(mode="before")
    @classmethod
    def _refuse_others(cls, value: Any) -> Any:
        # Not pydantic's own check, which makes an error for each of thousands of names.
        known = {field.alias for field in cls.model_fields.values()}
        others = [name for name in value if name not in known] if isinstance(value, dict) else []
        if others:
            listed = ", ".join(name[:MAX_NAME_CHARS] for name in others[:_MAX_NAMES])
            raise ValueError(f"there is no member {listed}")
        return value


class View(BaseModel):
    """A response body, or a part of one. Members that are `None` are left out."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        # Most processes use few of the models.
        defer_build=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Query(BaseModel):
    """The query parameters of a route. Unknown ones are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        frozen=True,
        # Most processes use few of the models.
        defer_build=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


def items(count: int, at_least: int = 0) -> Any:
    """Return the `Field` of a list of at most ``count`` items, read up to the first invalid one.

    It must be the first annotation of the list: after a validator, pydantic checks the length last.
    """
    return Field(min_length=at_least or None, max_length=count, fail_fast=True)


def at_most(count: int) -> BeforeValidator:
    """Return a validator that refuses a map of more than ``count`` members before it is read."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > count:
            raise ValueError(f"at most {count} members")
        return value

    return BeforeValidator(check)


def any_case(*spellings: str) -> BeforeValidator:
    """Return a validator that accepts each of ``spellings`` in any case."""
    known = {spelling.lower(): spelling for spelling in spellings}

    def spell(value: object) -> object:
        return known.get(value.lower(), value) if isinstance(value, str) else value

    return BeforeValidator(spell)


def unique(key: Callable[[Any], Hashable], what: str) -> AfterValidator:
    """Return a validator that refuses items with equal ``key``; ``what`` names them in errors."""

    def check(items: Sequence[Item]) -> Sequence[Item]:
        if len({key(item) for item in items}) != len(items):
            raise ValueError(f"{what} must be unique")
        return items

    return AfterValidator(check)


def unsupported(why: str) -> AfterValidator:
    """Return a validator that refuses every value except an empty one; ``why`` is for the caller.

    Clients send empty members that their users did not set.
    """

    def check(value: Any) -> Any:
        items = value if isinstance(value, list) else [value]
        if any(not isinstance(item, str) or item.strip() for item in items):
            raise ValueError(f"not supported: {why}")
        return value

    return AfterValidator(check)


def _without_repeats(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _not_zero(duration: str) -> str:
    if not any(digit in duration for digit in "123456789"):
        raise ValueError("must be longer than PT0S")
    return duration


def _ascii_number(value: object) -> object:
    """Refuse text that is not only ASCII digits: `int` accepts more."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("write a number")
    return value


def _flag(value: object) -> object:
    if isinstance(value, str):
        if value.lower() not in {"true", "false"}:
            raise ValueError("write true or false")
        return value.lower() == "true"
    return value


def _split(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [part.strip() for text in value for part in str(text).split(",") if part.strip()]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For members of type `int`, after their bounds: strict models accept 3.0 as 3 (RFC 8259 §6)."""
SPLIT = BeforeValidator(_split)
"""For lists in queries: accepts both ``?name=a&name=b`` and ``?name=a,b``."""
MAX_URI_CHARS = 2048
Target = Annotated[
    str,
    text_rule(
        r"^([A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*$",
        "be a path and query of a URL, with all other characters percent-encoded",
        max_length=MAX_URI_CHARS,
    ),
]
"""A request target: a URI reference without fragment (RFC 3986 §4.1). Callers percent-encode other
characters, which a request line cannot contain."""
FullUri = Annotated[
    str,
    text_rule(
        r"^[^\x00-\x20\x7f]+$",
        "not be empty, and have neither spaces nor control characters",
        max_length=MAX_URI_CHARS,
    ),
]
"""The URI of an artifact; only spaces and control characters are refused."""
Uuid = Annotated[
    str,
    text_rule(
        r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
        "be a UUID",
    ),
    Field(json_schema_extra={"format": "uuid"}),
    AfterValidator(str.lower),
]
MAX_SHORT_CHARS = 256
ShortText = Annotated[str, Field(min_length=1, max_length=MAX_SHORT_CHARS)]
MaybeText = Annotated[str, Field(max_length=MAX_SHORT_CHARS)]
"""May be empty, which counts as absent."""
Texts = Annotated[list[MaybeText], items(256), AfterValidator(_without_repeats)]
"""A list of texts without duplicates, in the order given."""
VISIBLE_ID = text_rule(
    r"^[\x21-\x7e]{1,128}$", "consist of 1 to 128 visible ASCII characters, without spaces"
)
NcaId = Annotated[str, VISIBLE_ID]
_SECONDS = r"[0-9]+(\.[0-9]+)?S"
_MINUTES = rf"[0-9]+M({_SECONDS})?"
_TIME = rf"T([0-9]+H({_MINUTES}|{_SECONDS})?|{_MINUTES}|{_SECONDS})"
Duration = Annotated[
    str,
    text_rule(
        rf"^P([0-9]+D({_TIME})?|{_TIME})$",
        "be a duration of ISO 8601, such as PT10S",
        max_length=32,
    ),
]
"""ISO 8601, such as ``PT10S``; at least one number."""
Timeout = Annotated[Duration, AfterValidator(_not_zero)]
"""A duration longer than zero."""
Limit = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_ascii_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
