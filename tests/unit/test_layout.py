"""The tree is what README and CONTRIBUTING say it is: folders, names, and complete config files."""

import ast
import importlib
import re
import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from runtime.setting_rules import read_value
from runtime.settings import Section, keys

ROOT = Path(__file__).parents[2]
PACKAGES = ("wire", "runtime", "http1", "queueing", "gateway", "worker_agent", "invocation_client")
JOURNEY = (
    "http1",
    "dispatch",
    "routing",
    "auth",
    "invocation",
    "queueing",
    "worker_agent",
    "attach",
)
"""The folders in the order in which a request meets them; at the last its response comes back."""
GENERATED = {"wire/nvcf_pb2.py", "wire/nvcf_worker_pb2.py"}


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if str(path.relative_to(ROOT)) not in GENERATED]


def test_readme_lists_the_folders_in_the_order_in_which_a_request_meets_them() -> None:
    readme = (ROOT / "README.md").read_text()
    first = {name: re.search(rf"\b{name}/", readme) for name in JOURNEY}
    assert [name for name, found in first.items() if found is None] == []
    order = sorted(JOURNEY, key=lambda name: found.start() if (found := first[name]) else -1)
    assert tuple(order) == JOURNEY
    for name in JOURNEY:
        assert (ROOT / name).is_dir() or (ROOT / "gateway" / name).is_dir(), name


def test_every_module_says_what_it_is_for() -> None:
    assert [
        str(path.relative_to(ROOT))
        for path in modules(*PACKAGES)
        if not ast.get_docstring(ast.parse(path.read_text()))
    ] == []


def test_the_container_image_is_built_from_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = re.findall(r"^COPY (\w+) \./\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted([*packages, "config"])


def test_unit_tests_stand_where_their_module_stands() -> None:
    """``tests/unit/a/b/test_c.py`` or ``test_c_aspect.py`` is about the module ``a/b/c``."""
    unit = ROOT / "tests" / "unit"
    astray = []
    for path in sorted(unit.rglob("test_*.py")):
        folder = ROOT / path.parent.relative_to(unit)
        subject = path.stem.removeprefix("test_")
        names = {other.stem for other in folder.iterdir()} if folder.is_dir() else set()
        if path.parent != unit and not any(
            subject == name or subject.startswith(f"{name}_") for name in names
        ):
            astray.append(str(path.relative_to(ROOT)))
    assert astray == []


def test_support_code_and_tests_import_downwards_only() -> None:
    """``tests.support`` imports only itself.

    Everything else in ``tests`` imports that, and modules of its own folder that hold no tests.
    """
    astray = []
    for path in modules("tests"):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        own_folder = name.rpartition(".")[0]
        for imported in sorted(imported_modules(path)):
            folder, _, module = imported.rpartition(".")
            is_plain = not module.startswith("test_") and module != "conftest"
            is_support = folder == "tests.support"
            is_beside = folder == own_folder and is_plain
            if imported.startswith("tests.") and not (is_support or is_beside):
                astray.append(f"{name} imports {imported}")
    assert astray == []


def test_tests_do_not_name_private_members() -> None:
    """Tests use what a class shows: no private import, no ``setattr(product, "_member", ...)``.

    ``object._member`` is found by ruff (SLF001). An exception needs its reason beside it.
    """
    astray = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules("tests")
        for name in named_members(path)
        if re.search(r"(^|\.)_[a-z]\w*$", name, re.IGNORECASE)
    ]
    assert astray == []


def named_members(path: Path) -> list[str]:
    """Return the names that a file imports, or gives to ``getattr``, ``setattr``, ``delattr``."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and re.search(
            r"\b(get|set|del)attr$", ast.unparse(node.func)
        ):
            found.extend(
                part.value
                for part in node.args[:2]
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )
    return found


def imported_modules(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(members if is_package else {node.module})
    return found


# The files in config/ are compared with the programs' models. These are imported by name inside the
# test, so that an import error of one program does not hide a problem of the other.

_KEY = re.compile(r"^(#\s*)?([a-z][a-z0-9_]*)\s*=")
_SECTION = re.compile(r"^\[([a-z0-9_.]+)\]$")


def root_section(module_name: str) -> type[Section]:
    """Return the one `Section` of a settings module that no other contains or extends."""
    found = [
        value
        for value in vars(importlib.import_module(module_name)).values()
        if isinstance(value, type) and issubclass(value, Section) and value is not Section
    ]
    kinds = [kind for section in found for kind in get_type_hints(section).values()]
    parts = {part for kind in kinds for part in (kind, *get_args(kind))}
    parts.update(base for section in found for base in section.__bases__)
    (root,) = [section for section in found if section not in parts]
    return root


def written_keys(text: str) -> tuple[list[str], list[str]]:
    """Return the dotted keys of a TOML file: those that are set, and those commented out."""
    is_set: list[str] = []
    commented: list[str] = []
    prefix = ""
    for line in text.splitlines():
        if section := _SECTION.match(line):
            prefix = f"{section[1]}."
        elif key := _KEY.match(line):
            (commented if key[1] else is_set).append(prefix + key[2])
    return is_set, commented


@pytest.mark.parametrize(
    ("file", "module_name"),
    [
        ("config/gateway.toml", "gateway.settings"),
        ("config/worker.toml", "worker_agent.settings"),
    ],
)
def test_a_config_file_lists_every_setting_at_its_default(file: str, module_name: str) -> None:
    """A setting that has no default, or the default None, is commented out."""
    settings = keys(root_section(module_name))
    text = (ROOT / file).read_text()
    is_set, commented = written_keys(text)
    has_default = {
        name
        for name, setting in settings.items()
        if not setting.is_required and setting.default is not None
    }
    assert sorted(is_set) == sorted(has_default)
    assert sorted(commented) == sorted(set(settings) - has_default)
    for name in is_set:
        value: Any = tomllib.loads(text)
        for part in name.split("."):
            value = value[part]
        assert read_value(settings[name].kind, value) == settings[name].default, name
