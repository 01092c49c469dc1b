"""Loads settings: defaults, overridden by a TOML file, overridden by the environment.

A program declares one tree of `Section` models and calls `load` once at start. All problems are
reported at once, each with its dotted name. An undeclared name is an error, because a misspelt
setting that is silently ignored is worse than a refused one.

In the environment ``edge.head_timeout_s`` is ``GATEWAY_EDGE__HEAD_TIMEOUT_S``: the prefix, then the
section names and the key joined by two underscores. Lists are written ``a,b`` or as JSON.
"""

import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import (
    Annotated,
    Any,
    NamedTuple,
    Self,
    TypeVar,
    dataclass_transform,
    get_type_hints,
)

import orjson

from runtime.setting_rules import (
    AtLeast,
    Before,
    Matching,
    RefusedError,
    SettingProblem,
    is_list,
    read_value,
)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Section:
    """A group of settings, or all of a program: a frozen dataclass, every key declared.

    `load` reads each value by its annotation (`runtime.setting_rules`).
    """

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong among the settings together: a setting, and a message."""
        yield from ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Return the section of a TOML table. Raises `RefusedError`."""
        if not isinstance(value, Mapping):
            text = f"Input should be a valid dictionary or instance of {cls.__name__}"
            raise RefusedError([SettingProblem((), text)])
        read: dict[str, Any] = {}
        problems: list[SettingProblem] = []
        settings = _settings_of(cls)
        for name, setting in settings.items():
            if name not in value:
                if setting.is_required:
                    problems.append(SettingProblem((name,), "must be set"))
                continue
            try:
                read[name] = read_value(setting.kind, value[name])
            except RefusedError as error:
                problems += [SettingProblem((name, *at), message) for at, message in error.problems]
        problems += [
            SettingProblem((name,), "no such setting") for name in value if name not in settings
        ]
        if not problems:
            section = cls(**read)
            problems = [SettingProblem((name,), message) for name, message in section.defects()]
            if not problems:
                return section
        raise RefusedError(problems)


class Setting(NamedTuple):
    """The type of a setting, an annotation, and its default, ``dataclasses.MISSING`` for none."""

    kind: Any
    default: object

    @property
    def is_required(self) -> bool:
        return self.default is MISSING


Model = TypeVar("Model", bound=Section)


class SettingsError(Exception):
    """All problems of the settings, each a line ``section.key: message``."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_UNITS_S = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "ns": 1e-9,
}
# The micro sign by its number: by its name, a megabyte of names is loaded.
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|\u00b5s|ns)")
_GO = re.compile(rf"(?:{_GO_PART.pattern})+")
_ISO = re.compile(
    r"P(?:(?P<d>\d+)D)?(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?",
    re.IGNORECASE,
)


def parse_seconds(value: object) -> float:
    """Return a duration in seconds.

    Accepts a number of seconds (``5``, ``0.5``, also as text), Go's format (``10s``, ``500ms``,
    ``1h30m``) and ISO 8601 (``PT10S``, ``P1DT2H``), which NVCF's worker settings use
    (`docs/wire.md` §8.1). Raises ValueError.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _seconds_of_text(value.strip())
    else:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f'not a duration: {value!r} (write 5, 0.5, "10s", "500ms" or "PT10S")')
    return seconds


def _seconds_of_text(text: str) -> float:
    if _GO.fullmatch(text):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _GO_PART.findall(text))
    iso = _ISO.fullmatch(text)
    if iso is not None and any(iso.groups()):
        days, hours, minutes, seconds = (float(part or 0) for part in iso.groups())
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    try:
        return float(text)
    except ValueError:
        return math.nan


Seconds = Annotated[float, Before(parse_seconds), AtLeast(0)]
"""A duration in seconds, at least 0; `parse_seconds` lists the formats."""
Name = Annotated[
    str, Matching(r"[A-Za-z0-9_-]{1,64}", "consist of 1 to 64 letters, digits, - and _")
]
"""A name that can be a part of subjects, paths and file names."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on or connect to: TCP ``host`` and ``port``, or a Unix socket ``path``.

    Port 0 means any free port. An IPv6 host has no brackets here. ``path`` is empty for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``127.0.0.1:8080``, ``[::1]:80``, ``localhost:0`` or ``unix:/path``.

        Raises ValueError.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path or "\0" in path:
                raise ValueError(f"not an address: {text!r} (a path must follow unix:)")
            return cls(path=path)
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            valid = ":" in host and not set(host) & set("[]/ ")
        else:
            valid = bool(host) and not set(host) & set(":[]/@ \t\r\n\0")
        if not valid or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(
                f"not an address: {text!r} (write host:port, [ipv6]:port or unix:/path)"
            )
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Return the address that is written as a text. Raises ValueError."""
        if not isinstance(value, str):
            raise ValueError("not an address (write host:port as text)")  # noqa: TRY004  as other refused values
        return cls.parse(value)


def keys(model: type[Section]) -> dict[str, Setting]:
    """Return every setting of a tree by its dotted name, in the order of declaration."""
    return dict(_walk(model, ""))


def _walk(model: type[Section], prefix: str) -> Iterator[tuple[str, Setting]]:
    for name, setting in _settings_of(model).items():
        if isinstance(setting.kind, type) and issubclass(setting.kind, Section):
            yield from _walk(setting.kind, f"{prefix}{name}.")
        else:
            yield prefix + name, setting


def _settings_of(model: type[Section]) -> dict[str, Setting]:
    hints = get_type_hints(model, include_extras=True)
    return {
        member.name: Setting(
            hints[member.name],
            member.default if member.default_factory is MISSING else member.default_factory(),
        )
        for member in fields(model)  # type: ignore[arg-type]  # each subclass is made a dataclass
    }


def load(
    model: type[Model],
    file: Path | None,
    env_prefix: str,
    *,
    environ: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Model:
    """Return the effective settings of one program.

    ``file`` is a TOML file, `None` for none. ``env_prefix`` has no trailing underscore. ``aliases``
    maps environment variables of another system to dotted names
    (``{"INFERENCE_PORT": "inference.port"}``). Of several aliases of one setting the first that is
    set and not empty wins (`docs/wire.md` §8.1); the prefixed name wins over all of them.
    ``defaults`` are like ``environ``, with prefixed names only, but are overridden by everything
    else, and a name that is not known is ignored. Raises SettingsError with every problem found.
    """
    environ = os.environ if environ is None else environ
    tree = {} if file is None else _read(file)
    settings = keys(model)
    problems: list[str] = []
    sources: dict[str, str] = {}
    for _, dotted, text in _from_environment(settings, env_prefix, defaults or {}, {}):
        if dotted in settings and not _has(tree, dotted):
            _put(tree, dotted, _value_of(text, settings[dotted]))
    for name, dotted, text in _from_environment(settings, env_prefix, environ, aliases or {}):
        if dotted not in settings:
            problems.append(f"{name}: no such setting")
            continue
        sources[dotted] = name
        _put(tree, dotted, _value_of(text, settings[dotted]))
    for dotted in settings:
        _create_sections(tree, dotted)
    try:
        loaded = model.from_setting(tree)
    except RefusedError as error:
        problems += [_describe(problem, sources) for problem in error.problems]
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return loaded


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"{file}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{file}: not TOML: {error}"]) from error


def _from_environment(
    settings: Mapping[str, Setting],
    env_prefix: str,
    environ: Mapping[str, str],
    aliases: Mapping[str, str],
) -> Iterator[tuple[str, str, str]]:
    """Yield ``(variable, dotted name, text)`` in ascending order of precedence."""
    for name in reversed(list(aliases)):
        if text := environ.get(name):
            yield name, aliases[name], text
    prefix = f"{env_prefix}_"
    for name, text in environ.items():
        if name.startswith(prefix):
            dotted = name.removeprefix(prefix).replace("__", ".").lower()
            if dotted in settings or not _is_service_link(name, text):
                yield name, dotted, text


_SERVICE_LINK = re.compile(r"_SERVICE_HOST|_SERVICE_PORT|_PORT_\d+_(TCP|UDP|SCTP)|_PORT$")


def _is_service_link(name: str, text: str) -> bool:
    """Return whether Kubernetes set this variable for a Service whose name equals the prefix.

    A Service named ``gateway`` gives every pod ``GATEWAY_PORT=tcp://10.0.0.1:80`` and others.
    """
    if "__" in name or not (found := _SERVICE_LINK.search(name)):
        return False
    return found[0].startswith("_SERVICE") or found[1] is not None or "://" in text


def _value_of(text: str, setting: Setting) -> object:
    """Return ``text`` as the value in a file would be: lists and tables decoded."""
    if not is_list(setting.kind):
        return text
    if text.lstrip().startswith(("[", "{")):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return [part.strip() for part in text.split(",") if part.strip()]


def _put(tree: dict[str, Any], dotted: str, value: object) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        below = tree.get(section)
        if not isinstance(below, dict):
            below = tree[section] = {}
        tree = below
    tree[key] = value


def _has(tree: Mapping[str, Any], dotted: str) -> bool:
    found: object = tree
    for part in dotted.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _create_sections(tree: dict[str, Any], dotted: str) -> None:
    """Create missing sections, so that a required setting is reported by its full name."""
    for section in dotted.split(".")[:-1]:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            return
        tree = below


def _describe(problem: SettingProblem, sources: Mapping[str, str]) -> str:
    dotted = ".".join(str(part) for part in problem.location) or "settings"
    source = sources.get(dotted)
    return f"{dotted}: {problem.message}" + (f" (from {source})" if source else "")
