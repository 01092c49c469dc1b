"""Values of settings: what is read as what, and what is said about anything else."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from runtime.setting_rules import (
    Above,
    After,
    AtLeast,
    AtMost,
    Before,
    ExistingFile,
    Matching,
    NotEmpty,
    RefusedError,
    SecretText,
    read_value,
)

WORD = Annotated[str, Matching(r"[a-z]+", "consist of letters")]


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (int, "9", 9),
        (int, " 1_000 ", 1000),
        (int, 5.0, 5),
        (float, 1, 1.0),
        (bool, "off", False),
        (bool, "TRUE", True),
        (Path, "/a", Path("/a")),
        (SecretText, "x", SecretText("x")),
        (Literal["a", "b"], "b", "b"),
        (int | None, None, None),
        (tuple[int, ...], ["1", 2], (1, 2)),
        (dict[str, WORD], {"x": "a"}, {"x": "a"}),
        (Annotated[str, Before(str), Matching("[0-9]", "be a digit")], 5, "5"),
        (Annotated[str, After(str.upper)], "a", "A"),
        (Annotated[Annotated[int, AtLeast(1)], AtMost(3)], 3, 3),
    ],
)
def test_a_value_is_read_by_its_type(kind: Any, written: object, value: object) -> None:
    assert read_value(kind, written) == value


@pytest.mark.parametrize(
    ("kind", "written", "location", "message"),
    [
        (int, True, (), "Input should be a valid integer"),
        (int, 1.5, (), "Input should be a valid integer, got a number with a fractional part"),
        (
            *(int, "x", ()),
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        (bool, "maybe", (), "Input should be a valid boolean, unable to interpret input"),
        (str, 1, (), "Input should be a valid string"),
        (Path, 1, (), "Input is not a valid path"),
        (ExistingFile, "/nowhere", (), "Path does not point to a file"),
        (SecretText, ["x"], (), "Input should be a valid string"),
        (Literal["a", "b", "c"], "d", (), "Input should be 'a', 'b' or 'c'"),
        (Literal["a"], "d", (), "Input should be 'a'"),
        (int | None, "x", (), "Input should be a valid integer, unable to parse string"),
        (tuple[int, ...], "x", (), "Input should be a valid tuple"),
        (tuple[WORD, ...], ["a", "1"], (1,), "String should consist of letters"),
        (dict[str, WORD], {"x": "1"}, ("x",), "String should consist of letters"),
        (WORD, "a\n", (), "String should consist of letters"),
        (Annotated[int, AtLeast(1)], 0, (), "Input should be greater than or equal to 1"),
        (Annotated[float, Above(0)], 0, (), "Input should be greater than 0"),
        (Annotated[int, AtMost(5)], 6, (), "Input should be less than or equal to 5"),
        (Annotated[str, NotEmpty()], "", (), "String should have at least 1 character"),
        (
            *(Annotated[tuple[int, ...], NotEmpty()], [], ()),
            "Tuple should have at least 1 item after validation, not 0",
        ),
    ],
)
def test_anything_else_is_refused_in_words(
    kind: Any, written: object, location: tuple[object, ...], message: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        read_value(kind, written)
    (problem,) = refused.value.problems
    assert problem.location == location
    assert problem.message.startswith(message)


def test_a_secret_is_not_shown_and_false_if_it_is_empty() -> None:
    assert "hunter2" not in repr(SecretText("hunter2"))
    assert SecretText("hunter2").get_secret_value() == "hunter2"
    assert bool(SecretText("a"))
    assert not SecretText("")
