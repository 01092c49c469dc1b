"""Shell words: the result of `shlex.split`, in linear time."""

import shlex
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.provision.shellwords import split


def outcome(splitter: Callable[[str], list[str]], line: str) -> list[str] | None:
    try:
        return splitter(line)
    except ValueError:
        return None


@settings(max_examples=500)
@given(st.text(alphabet=" \t\n\r'\"\\ab$#\x0b\u00a0é", max_size=14))
@example("a'b c'\"d\\\"\\e\" ''")
@example("\\")
@example('"\\')
@example("'a\\'b")
def test_the_words_are_those_of_shlex(line: str) -> None:
    assert outcome(split, line) == outcome(shlex.split, line)


@pytest.mark.parametrize(
    "piece", ["a", "a ", "\\a", "''", '"a"', '"\\"', "'", '"', "\\", '"\\a', "'a b", "a'b\"c"]
)
def test_the_time_is_linear_in_the_length(piece: str) -> None:
    """`shlex.split` takes 11 s for a million times ``a``."""
    line = piece * (1_000_000 // len(piece))
    began = time.perf_counter()
    outcome(split, line)
    assert time.perf_counter() - began < 5.0
