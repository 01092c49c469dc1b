"""Rules for texts from outside: a regular expression for pydantic, the same in words for people."""

from typing import Any

from pydantic import Field
from pydantic_core import ErrorDetails

_words: dict[str, str] = {}
"""The words of each rule, by its regular expression."""


def text_rule(pattern: str, words: str, *, max_length: int | None = None) -> Any:
    """Return the field that takes texts that match ``pattern``, at most ``max_length`` long.

    ``words`` continue "String should": a verb first, no full stop.
    """
    limit = "" if max_length is None else f", at most {max_length} characters"
    _words[pattern] = words + limit
    return Field(pattern=pattern, max_length=max_length)


def message_of(error: ErrorDetails) -> str:
    """Return what a validation error says, without regular expressions."""
    if error["type"] == "string_pattern_mismatch":
        return f"String should {_words[error['ctx']['pattern']]}"
    return error["msg"].removeprefix("Value error, ")
