"""YAML documents as plain values, with the line of each.

Only what JSON has is accepted, so that no value is another type than it looks: no dates, no tags,
no merge keys. Aliases are, as often as `MAX_VALUES` allows.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml

MAX_BYTES = 4 * 1024 * 1024
"""Size of a file."""
MAX_VALUES = 50_000
"""Values of a file, those of aliases counted each time: an alias costs nothing to write."""
MAX_DEPTH = 64
_TOO_MANY = f"more than {MAX_VALUES} values, with those of aliases"
_TOO_DEEP = "is nested too deeply"

Path = tuple[str | int, ...]
"""Names and indexes that lead to a value of a document."""


class FileProblem(NamedTuple):
    """Something wrong in a file: where, and what."""

    source: str
    line: int
    path: Path
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}"
        dotted = ".".join(str(part) for part in self.path)
        return f"{where}: {dotted}: {self.message}" if dotted else f"{where}: {self.message}"


class FileError(Exception):
    """A file cannot be used."""

    def __init__(self, problems: list[FileProblem]) -> None:
        super().__init__(problems)
        self.problems = problems


class YamlDocument(NamedTuple):
    """A document of a file. ``lines`` are those on which its values begin, from 1."""

    source: str
    value: object
    lines: dict[Path, int]

    def problem(self, path: Path, message: str) -> FileProblem:
        """Return a problem at ``path``, or at what is there of it."""
        known = path
        while known not in self.lines:
            known = known[:-1]
        return FileProblem(self.source, self.lines[known], path, message)


def read_documents(data: bytes, source: str) -> list[YamlDocument]:
    """Return the documents of a file that have a content. Raises `FileError`."""
    if len(data) > MAX_BYTES:
        raise FileError([FileProblem(source, 1, (), f"has more than {MAX_BYTES} bytes")])
    reader = _Reader(source)
    try:
        return [document for document in reader.documents(data) if document.value is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(text for text in (error.context, error.problem) if text)
        line = 1 if mark is None else mark.line + 1
        raise FileError([FileProblem(source, line, (), f"not YAML: {what}")]) from None
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError is of text that is none: bytes, or the number of a character.
        reason = getattr(error, "reason", "it cannot be read")
        raise FileError([FileProblem(source, 1, (), f"not YAML: {reason}")]) from None


class _BoundedLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses what has too many values, or too deep ones, before the rest is read."""

    def __init__(self, data: bytes, refuse: Callable[[Any, str], FileError]) -> None:
        """``refuse`` makes the error of an event, with the reason."""
        super().__init__(data)
        self._refuse = refuse
        self._count = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if parent is None or index is not None:  # A name of a member is no value.
            self._count += 1
            if self._count > MAX_VALUES:
                raise self._refuse(self.peek_event(), _TOO_MANY)
        if self._depth > MAX_DEPTH:
            raise self._refuse(self.peek_event(), _TOO_DEEP)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._left = MAX_VALUES
        self._scalars = yaml.constructor.SafeConstructor()

    def documents(self, data: bytes) -> Iterator[YamlDocument]:
        loader = _BoundedLoader(data, lambda event, why: self._refuse(event, (), why))
        while loader.check_node():
            node, lines = loader.get_node(), dict[Path, int]()
            yield YamlDocument(self._source, self._value(node, (), lines), lines)

    def _value(self, node: Any, path: Path, lines: dict[Path, int]) -> object:
        line = node.start_mark.line + 1
        lines.setdefault(path, line)
        self._left -= 1
        if self._left < 0:
            raise self._refuse(node, path, _TOO_MANY)
        if len(path) > MAX_DEPTH:
            raise self._refuse(node, path[:4], _TOO_DEEP)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, "tag:yaml.org,2002:seq")
            return [
                self._value(item, (*path, index), lines) for index, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, path, "tag:yaml.org,2002:map")
            return self._mapping(node, path, lines)
        return self._scalar(node, path)

    def _mapping(self, node: Any, path: Path, lines: dict[Path, int]) -> dict[str, object]:
        members: dict[str, object] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise self._refuse(key, path, "merge keys (<<) are not supported; use an alias")
            if key.tag != "tag:yaml.org,2002:str":
                raise self._refuse(key, path, "names of members must be texts: quote this one")
            name = self._text(key, path)
            if name in members:
                raise self._refuse(key, (*path, name), "is there twice")
            lines[*path, name] = key.start_mark.line + 1
            members[name] = self._value(value, (*path, name), lines)
        return members

    def _scalar(self, node: Any, path: Path) -> object:
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):
            # The library's errors for a text that is not of the type that its tag says.
            raise self._refuse(node, path, f"{node.tag} is not supported here") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refuse(node, path, "must be a finite number")
        if isinstance(value, str):
            return self._text(node, path)
        if value is None or isinstance(value, bool | int | float):
            return value
        raise self._refuse(
            node, path, "looks like a date or like bytes: quote it to make it a text"
        )

    def _text(self, node: Any, path: Path) -> str:
        """Return the text of a scalar, which YAML's escapes can make of halves of characters."""
        text = str(node.value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._refuse(node, path, "has half of a character (a surrogate)") from None
        return text

    def _check_tag(self, node: Any, path: Path, plain: str) -> None:
        if node.tag != plain:
            raise self._refuse(node, path, f"{node.tag} is not supported")

    def _refuse(self, node: Any, path: Path, message: str) -> FileError:
        return FileError([FileProblem(self._source, node.start_mark.line + 1, path, message)])
