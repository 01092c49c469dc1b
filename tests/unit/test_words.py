"""Retired words are in no identifier of the product (`docs/glossary.md` lists them), and a class
name has one meaning."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("wire", "runtime", "http1", "queueing", "gateway", "worker_agent", "invocation_client")
GENERATED = {"wire/nvcf_pb2.py", "wire/nvcf_worker_pb2.py"}

_BLOCK = re.compile(r"^```retired\n(.*?)^```", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

TWINS = {
    # A class of the gateway and its counterpart in the worker agent
    "AdminSettings",
    "AttachSettings",
    "Context",
    "ControlSettings",
    "DrainSettings",
    "Event",
    "LogSettings",
    "Outcome",
    "State",
    # A protocol and its implementation
    "AccountStore",
    "AccountStores",
    "PullConsumer",
    "Queues",
    "RequestLocator",
    "SecretStore",
    "Subscription",
    # The same of each broker
    "Link",
    "LinkOwner",
    "NoResponse",
    "NotConnected",
    "PublishedRequest",
    "VersionQueue",
    "WorkerUsers",
    # A document as the worker reads it and as the API describes it
    "ConnectResponse",
    "HeartbeatResponse",
}
"""Class names that are defined twice on purpose."""


class Retired(NamedTuple):
    """``words`` are refused wherever they are part of a name, ``names`` only as the whole name."""

    words: frozenset[str]
    names: frozenset[str]

    def refuses(self, identifier: str) -> bool:
        """Whether ``identifier`` is one of the names or has one of the words in it."""
        words = {word.lower() for word in _WORD.findall(identifier)}
        return identifier in self.names or not words.isdisjoint(self.words)


def retired(glossary: str) -> Retired:
    """Read the list at the end of the glossary: one word per line, then what to use instead."""
    found = _BLOCK.search(glossary)
    assert found is not None, "the glossary has no list of retired identifiers"
    entries = [line.split()[0] for line in found[1].splitlines() if line.strip()]
    names = frozenset(entry[1:] for entry in entries if entry.startswith("="))
    return Retired(frozenset(entry for entry in entries if not entry.startswith("=")), names)


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of every class, function, argument, variable and attribute.

    Names that are only imported or used belong to the module that defines them, except attributes,
    of which a reader cannot tell whose they are.
    """
    for node in ast.walk(tree):
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.keyword(arg=str(name)):
                yield node.value.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def module_names(path: Path) -> list[str]:
    return [part.removesuffix(".py") for part in path.relative_to(ROOT).parts]


LIST = retired((ROOT / "docs" / "glossary.md").read_text())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_identifier_has_a_retired_word(package: str) -> None:
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        where = str(path.relative_to(ROOT))
        if where in GENERATED:
            continue
        found += [f"{where}: {name}" for name in module_names(path) if LIST.refuses(name)]
        found += [
            f"{where}:{line}: {name}"
            for line, name in identifiers(ast.parse(path.read_text()))
            if LIST.refuses(name)
        ]
    assert not found, "see docs/glossary.md:\n" + "\n".join(dict.fromkeys(found))


def test_no_class_name_is_defined_twice() -> None:
    modules = defaultdict(list)
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        where = str(path.relative_to(ROOT))
        if where in GENERATED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(where)
    twice = {name: found for name, found in modules.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in TWINS} == {}
    assert {name for name, found in twice.items() if len(found) > 2} == set()
    assert TWINS - twice.keys() == set(), "no longer defined twice"


SAMPLE = """
import desk as other
from desk import shown as vault
class InvocationDesk:
    def keep(self, upkeep, *, placed):
        self._twins = replace(placed, wants=1)
        place = DESK_SIZE = 3
        for ending in self.standings: pass
        try: pass
        except OSError as remains: pass
        return lambda told: outstanding
"""


def test_words_are_found_in_every_kind_of_identifier_and_only_as_whole_words() -> None:
    list_ = Retired(
        frozenset({"desk", "upkeep", "vault", "twins", "wants", "told", "standing", "remains"}),
        frozenset({"place"}),
    )
    assert sorted(name for _, name in identifiers(ast.parse(SAMPLE)) if list_.refuses(name)) == [
        "DESK_SIZE",
        "InvocationDesk",
        "_twins",
        "place",
        "remains",
        "told",
        "upkeep",
        "vault",
        "wants",
    ]


def test_the_list_is_read_from_the_glossary() -> None:
    text = "# Words\n\n```retired\ndesk   registry\n\n=Place  position\n```\n"
    assert retired(text) == Retired(frozenset({"desk"}), frozenset({"Place"}))
