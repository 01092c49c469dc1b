"""YAML of files: positions, and what is refused."""

import pytest

from gateway.cli.apply import yaml_documents
from gateway.cli.apply.yaml_documents import MAX_BYTES, FileError, read_documents


def refused(text: str) -> str:
    with pytest.raises(FileError) as failure:
        read_documents(text.encode(), "f.yaml")
    (problem,) = failure.value.problems
    return str(problem)


def test_documents_are_plain_values_with_the_lines_of_their_members() -> None:
    text = "# nothing\n---\na: 1\nb:\n  - x\n  - c: 2.5\n---\n---\n{d: [true, null]}\n"
    first, second = read_documents(text.encode(), "f.yaml")
    assert first.value == {"a": 1, "b": ["x", {"c": 2.5}]}
    assert second.value == {"d": [True, None]}
    assert str(first.problem(("b", 1, "c"), "no")) == "f.yaml:6: b.1.c: no"
    assert str(first.problem(("b", 1, "missing", 4), "no")).startswith("f.yaml:6: b.1.missing.4:")
    assert str(second.problem((), "no")) == "f.yaml:9: no"


def test_an_alias_is_the_value_again() -> None:
    (document,) = read_documents(b"a: &x [1, 2]\nb: *x\n", "f.yaml")
    assert document.value == {"a": [1, 2], "b": [1, 2]}


def test_a_bomb_of_aliases_and_one_that_contains_itself_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 50000 values" in refused("\n".join(lines))
    assert "nested too deeply" in refused("a: &a [*a]")
    assert "nested too deeply" in refused("[" * 20_000)


def test_the_rest_of_a_file_with_too_many_values_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yaml_documents, "MAX_VALUES", 10)
    assert refused("a:\n" + "- x\n" * 20 + "*nowhere") == (
        "f.yaml:10: more than 50000 values, with those of aliases"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "f.yaml:2: a: is there twice"),
        ("a:\n  when: 2026-01-01", "f.yaml:2: a.when: looks like a date"),
        (
            "a: !!python/object:os.system x",
            "f.yaml:1: a: tag:yaml.org,2002:python/object:os.system",
        ),
        ("a: !!set {x, y}", "f.yaml:1: a: tag:yaml.org,2002:set is not supported"),
        ("a: .inf", "f.yaml:1: a: must be a finite number"),
        ("1: x", "f.yaml:1: names of members must be texts"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "f.yaml:3: c: merge keys"),
        ("a: [1,\nb: 2", "f.yaml:2: not YAML: "),
        ("a: *nowhere", "f.yaml:1: not YAML: found undefined alias"),
        (f"a: {'9' * 5000}", "f.yaml:1: a: tag:yaml.org,2002:int"),
        ("a: !!bool maybe", "f.yaml:1: a: tag:yaml.org,2002:bool"),
        ('a: !!int ""', "f.yaml:1: a: tag:yaml.org,2002:int"),
        ("a: !!timestamp x", "f.yaml:1: a: tag:yaml.org,2002:timestamp"),
        ('a: "\\U00110000"', "f.yaml:1: not YAML"),
        ('a: "\\ud800"', "f.yaml:1: a: has half of a character"),
        ('"\\ud800": 1', "f.yaml:1: has half of a character"),
        ("\x01", "f.yaml:1: not YAML"),
        ("x" * (MAX_BYTES + 1), "f.yaml:1: has more than"),
    ],
)
def test_what_json_has_not_is_refused_with_its_line(text: str, problem: str) -> None:
    assert refused(text).startswith(problem)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(FileError, match="not YAML"):
        read_documents(b"a: \xff\xfe", "f.yaml")
