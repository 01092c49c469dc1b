"""What the documents point at is there, and what the code cites is in the documents."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CITING = ("*.py", "*.md", "*.toml", "*.proto", "*.pyi")
UNTRACKED = {"build", "dist", "node_modules"}
FOLDERS = ("wire", "runtime", "http1", "queueing", "gateway", "worker_agent", "config", "tests")

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_NUMBERED = re.compile(r"^#{2,3} ([0-9]+(?:\.[0-9]+)?)\.? ", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_TEST = re.compile(r"`(tests/[^`\s]+\.py)::(\w+)`")
_SECTION = r"§ ?([0-9]+(?:\.[0-9]+)?)"
_CITATION = re.compile(rf"`{{1,2}}docs/([a-z-]+\.md)`{{1,2}}[\s#/]+{_SECTION}")
_FOLLOWING = re.compile(rf"(?:,| and| to|,? or)[\s#]+{_SECTION}")
_OLD = re.compile(r"\bspec/[a-z-]+\.md")
_KNOWN_SOURCE = re.compile(r"RFC\s+[0-9]|NIST SP|docs/[a-z-]+\.md")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def citing_files() -> Iterator[Path]:
    """Yield the files that may cite a document, but not this one, which is about citations."""
    for pattern in CITING:
        for path in sorted(ROOT.rglob(pattern)):
            parts = path.relative_to(ROOT).parts
            hidden = any(part.startswith(".") or part in UNTRACKED for part in parts)
            if not hidden and path != Path(__file__):
                yield path


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", path.read_text())


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(slug(heading) for heading in _HEADING.findall(prose(path)))


@cache
def numbered_sections(path: Path) -> frozenset[str]:
    return frozenset(_NUMBERED.findall(prose(path))) if path.is_file() else frozenset()


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Yield document and section of every citation; a list of sections belongs to one document."""
    for found in _CITATION.finditer(text):
        document, section = found.groups()
        yield document, section
        at = found.end()
        while following := _FOLLOWING.match(text, at):
            yield document, following[1]
            at = following.end()


def unsourced(text: str) -> list[int]:
    """Return the numbers of lines with a section sign of which no source is told there."""
    lines = text.splitlines()
    return [
        number
        for number, line in enumerate(lines, 1)
        if "§" in line and not _KNOWN_SOURCE.search(" ".join(lines[max(number - 2, 0) : number]))
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", ["docs/architecture.md", "docs/troubleshooting.md"])
def test_every_path_in_backticks_exists(document: str) -> None:
    named = {
        word
        for word in _CODE.findall(prose(ROOT / document))
        if re.fullmatch(r"[\w./-]+", word) and word.partition("/")[0] in FOLDERS and "/" in word
    }
    assert named
    assert sorted(word for word in named if not (ROOT / word).exists()) == []


def test_every_invariant_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text()
    named = _TEST.findall(text)
    assert len(named) >= text.count("**I-")
    assert [
        f"{file}::{function}"
        for file, function in named
        if not (ROOT / file).is_file() or function not in functions_of(ROOT / file)
    ] == []


def test_invariants_are_numbered_in_order() -> None:
    numbers = re.findall(r"\*\*I-([0-9]+)\*\*", (ROOT / "docs" / "invariants.md").read_text())
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_every_citation_of_a_document_is_a_section_of_it() -> None:
    found = [
        (name_of(path), document, section)
        for path in citing_files()
        for document, section in citations(path.read_text())
    ]
    assert found
    assert [one for one in found if one[2] not in numbered_sections(ROOT / "docs" / one[1])] == []


def test_sections_of_the_wire_specification_refer_to_each_other() -> None:
    wire = ROOT / "docs" / "wire.md"
    named = re.findall(r"\bsections? ([0-9]+(?:\.[0-9]+)?)(?: to ([0-9]+))?", prose(wire))
    missing = {part for pair in named for part in pair if part} - numbered_sections(wire)
    assert missing == set()


def test_no_citation_is_without_a_document() -> None:
    found = []
    for path in citing_files():
        text = path.read_text()
        found += [f"{name_of(path)}: {old}" for old in _OLD.findall(text)]
        found += [f"{name_of(path)}:{number}: a bare section" for number in unsourced(text)]
    assert not found, "cite docs/wire.md, an RFC or a NIST publication:\n" + "\n".join(found)


def test_a_heading_becomes_the_anchor_that_github_makes() -> None:
    assert slug("3.4 The message") == "34-the-message"
    assert slug("Accounts, sharing, `tokens` and secrets") == "accounts-sharing-tokens-and-secrets"


def test_citations_are_read_with_the_sections_that_follow() -> None:
    text = (
        "Names (`docs/wire.md` §4.1, §4.2 and §5); ``docs/wire.md`` §11 to §13.\n"
        "Over the end of a line: `docs/wire.md`\n    §7.3. Elsewhere (RFC 9112 §6.3).\n"
    )
    sections = ["4.1", "4.2", "5", "11", "13", "7.3"]
    assert list(citations(text)) == [("wire.md", section) for section in sections]


def test_a_section_needs_its_source_on_the_same_line_or_the_one_before() -> None:
    text = "(§1.5)\n(RFC 9110 §7.6.1)\nand §7.7\nbut not §8\n`docs/wire.md` §2\n"
    assert unsourced(text) == [1, 4]
