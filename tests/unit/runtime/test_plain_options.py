"""Options read without a library for command lines."""

import pytest

from runtime.plain_options import plain_options

NAMES = ("config", "roles")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], {}),
        (["--config", "a.toml"], {"config": "a.toml"}),
        (["--roles=api,provision", "--config", "a"], {"roles": "api,provision", "config": "a"}),
        (["--config=a=b"], {"config": "a=b"}),
        (["--config", "a", "--config", "b"], {"config": "b"}),
    ],
)
def test_options_with_a_value_are_read(words: list[str], found: dict[str, str]) -> None:
    assert plain_options(words, NAMES) == found


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["--config"],
        ["--config="],
        ["--config", "--roles"],
        ["--conf", "a"],
        ["config", "a"],
        ["a"],
        ["--roles", "api", "more"],
    ],
)
def test_anything_else_is_left_to_the_library(words: list[str]) -> None:
    assert plain_options(words, NAMES) is None
