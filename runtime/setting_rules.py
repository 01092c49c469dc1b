"""Reads the value of one setting by its type, and says in words what is wrong with it.

A setting's type is an annotation that a dataclass can have: ``int``, ``bool``, ``str``, ``float``,
`Path`, a ``Literal``, a class that its values have, or `None`, tuples and unions of these.
``Annotated`` adds rules, which apply in their order. The messages, and what is read leniently
(numbers and booleans written as text), are those of pydantic, in which the REST API describes its
bodies. It is not used here: of a process that serves invocations it would be a quarter.
"""

import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin


class SettingProblem(NamedTuple):
    """What is wrong with a value: where it is below the setting, and why."""

    location: tuple[str | int, ...]
    message: str


class RefusedError(Exception):
    """A value is not one of its type."""

    def __init__(self, problems: list[SettingProblem]) -> None:
        super().__init__(problems)
        self.problems = problems


class Before(NamedTuple):
    """Rule: ``read`` converts the value before its type is checked. It raises ValueError."""

    read: Callable[[object], object]


class After(NamedTuple):
    """Rule: ``read`` converts or refuses (ValueError) a value of the right type."""

    read: Callable[[Any], object]


class AtLeast(NamedTuple):
    """Rule: a number is not below ``bound``."""

    bound: float


class Above(NamedTuple):
    """Rule: a number is above ``bound``."""

    bound: float


class AtMost(NamedTuple):
    """Rule: a number is not above ``bound``."""

    bound: float


class NotEmpty(NamedTuple):
    """Rule: a text or a list is not empty."""


class Matching(NamedTuple):
    """Rule: a whole text matches a regular expression.

    ``words`` say the same to people. They continue "String should": a verb first, no full stop.
    """

    expression: str
    words: str


@dataclass(frozen=True, slots=True)
class SecretText:
    """A text that is neither shown nor logged; false if it is empty."""

    _text: str

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "SecretText('**********')" if self._text else "SecretText('')"


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("Path does not point to a file")
    return path


ExistingFile = Annotated[Path, After(_file)]
"""The path of a file that is there."""

_INTEGER = re.compile(r"[+-]?\d+(_\d+)*(\.0*)?")
_TRUE = frozenset({"true", "t", "1", "yes", "y", "on"})
_FALSE = frozenset({"false", "f", "0", "no", "n", "off"})


def read_value(kind: Any, value: object) -> Any:
    """Return ``value`` as one of the type ``kind``. Raises `RefusedError`."""
    if get_origin(kind) is not Annotated:
        return _of_type(kind, value)
    inner, *rules = get_args(kind)
    for rule in rules:
        if isinstance(rule, Before):
            value = _converted(rule.read, value)
    value = read_value(inner, value)
    for rule in rules:
        if not isinstance(rule, Before):
            value = _checked(rule, value)
    return value


def is_list(kind: Any) -> bool:
    """Return whether values of ``kind`` are lists or tables, which have a form of their own."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return get_origin(kind) in {tuple, dict}


def _refuse(message: str) -> RefusedError:
    return RefusedError([SettingProblem((), message)])


def _converted(read: Callable[[Any], object], value: object) -> object:
    try:
        return read(value)
    except ValueError as error:
        raise _refuse(str(error)) from None


def _checked(rule: object, value: Any) -> object:
    match rule:
        case After(read):
            return _converted(read, value)
        case AtLeast(bound) if value < bound:
            raise _refuse(f"Input should be greater than or equal to {bound}")
        case Above(bound) if value <= bound:
            raise _refuse(f"Input should be greater than {bound}")
        case AtMost(bound) if value > bound:
            raise _refuse(f"Input should be less than or equal to {bound}")
        case NotEmpty() if not value and isinstance(value, str):
            raise _refuse("String should have at least 1 character")
        case NotEmpty() if not value:
            raise _refuse("Tuple should have at least 1 item after validation, not 0")
        case Matching(expression, words) if re.fullmatch(expression, value) is None:
            raise _refuse(f"String should {words}")
    return value


def _of_type(kind: Any, value: object) -> object:
    match get_origin(kind):
        case origin if origin is Literal:
            read = _one_of(get_args(kind), value)
        case origin if origin in {Union, types.UnionType}:
            read = _of_any(get_args(kind), value)
        case origin if origin is tuple:
            read = _items(get_args(kind)[0], value)
        case origin if origin is dict:
            read = _table(get_args(kind)[1], value)
        case _:
            read = _of_class(kind, value)
    return read


def _of_class(kind: Any, value: object) -> object:
    if kind in _READERS:
        return _READERS[kind](value)
    # A class of our own reads itself; a value of any other was made by the rules before.
    if isinstance(value, kind):
        return value
    if not hasattr(kind, "from_setting"):
        raise _refuse(f"Input should be an instance of {kind.__name__}")
    return _converted(kind.from_setting, value)


def _one_of(choices: tuple[object, ...], value: object) -> object:
    if value in choices:
        return value
    *others, last = map(repr, choices)
    raise _refuse(f"Input should be {' or '.join(filter(None, (', '.join(others), last)))}")


def _of_any(kinds: tuple[Any, ...], value: object) -> object:
    if value is None and type(None) in kinds:
        return None
    refused = _refuse("Input should be None")
    for kind in kinds:
        if kind is not type(None):
            try:
                return read_value(kind, value)
            except RefusedError as error:
                refused = error
    raise refused


def _items(kind: Any, value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise _refuse("Input should be a valid tuple")
    return tuple(_each(kind, enumerate(value)).values())


def _table(kind: Any, value: object) -> dict[object, object]:
    if not isinstance(value, Mapping):
        raise _refuse("Input should be a valid dictionary")
    return _each(kind, value.items())


def _each(kind: Any, members: Any) -> dict[Any, object]:
    read: dict[Any, object] = {}
    problems: list[SettingProblem] = []
    for key, value in members:
        try:
            read[key] = read_value(kind, value)
        except RefusedError as error:
            problems += [SettingProblem((key, *at), message) for at, message in error.problems]
    if problems:
        raise RefusedError(problems)
    return read


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refuse("Input should be a finite number")
        if value.is_integer():
            return int(value)
        raise _refuse("Input should be a valid integer, got a number with a fractional part")
    if not isinstance(value, str):
        raise _refuse("Input should be a valid integer")
    if _INTEGER.fullmatch(value.strip()) is None:
        raise _refuse("Input should be a valid integer, unable to parse string as an integer")
    return int(value.partition(".")[0])


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise _refuse("Input should be a valid number")


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | str):
        text = str(value).lower()
        if text in _TRUE | _FALSE:
            return text in _TRUE
        raise _refuse("Input should be a valid boolean, unable to interpret input")
    raise _refuse("Input should be a valid boolean")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _refuse("Input should be a valid string")
    return value


def _path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise _refuse("Input is not a valid path")
    return Path(value)


def _secret(value: object) -> SecretText:
    return SecretText(_text(value))


_READERS: Mapping[object, Callable[[object], object]] = {
    int: _integer,
    float: _number,
    bool: _truth,
    str: _text,
    Path: _path,
    SecretText: _secret,
}
