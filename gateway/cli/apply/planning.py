"""What has to be done so that functions become what is wanted. Pure: no calls, no clock.

A set is what one group of files describes; its versions carry a tag with its name, and nothing else
is ever changed. Of a function's versions in the set one is *current*: one that is like the
document in all members that cannot be changed (`docs/apply.md`). If none is, a version is
added: it is deployed and ACTIVE before the others are undeployed. So a plan that was interrupted
is continued by the plan made after it, and one that was finished is followed by an empty one.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hmac import compare_digest
from typing import Any, NamedTuple

import orjson

TAG_PREFIX = "gateway-apply"
_SECRETS_TAG = f"{TAG_PREFIX}-secrets:"
MAX_TAGS = 62
"""Tags of a document: those that the API takes, without the set's and that of secrets."""
SALT_BYTES = 8

Json = Mapping[str, Any]

CHANGEABLE = ("description", "tags", "rateLimit", "cors", "llmInvocationConfig")
"""Members of a version that the API can change."""
_FIXED = (
    *("inferenceUrl", "inferencePort", "maxBodyBytes", "allowRerun", "passInterim"),
    *("containerImage", "containerArgs", "containerEnvironment", "helmChart"),
    *("helmChartServiceName", "models", "health", "apiBodyFormat", "functionType"),
)
"""Members of a version that stay as they are."""
_DEFAULTS = {"allowRerun": True, "passInterim": False}
"""Of members that the API leaves out if they were not given."""
_NUMBERS = ("minInstances", "maxInstances", "maxRequestConcurrency")
_PLACES = (
    *("gpu", "backend", "clusters", "regions", "configuration", "preferredOrder"),
    "helmValidationPolicy",
)
"""Members of a GPU specification that its deployment keeps; and instanceType, if it is given."""


@dataclass(frozen=True, slots=True)
class WantedFunction:
    """What a document says. ``spec`` has the API's members with its defaults, without secrets.

    ``where`` is file and line. ``secrets`` are values by name; they are not shown.
    ``gpu_specs`` are the GPU specifications, none if it is not to be deployed.
    """

    name: str
    where: str
    spec: Json
    secrets: Mapping[str, str]
    gpu_specs: tuple[Json, ...]

    def __repr__(self) -> str:
        return f"WantedFunction({self.name!r}, {self.where!r})"


class Ref(NamedTuple):
    """The ids of a version."""

    function_id: str
    version_id: str

    @property
    def path(self) -> str:
        """The part of the API's paths that names the version."""
        return f"functions/{self.function_id}/versions/{self.version_id}"


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A version as the API shows it, with its deployment, `None` if it has none or drains."""

    view: Json
    deployment: Json | None = None

    @property
    def ref(self) -> Ref:
        return Ref(self.view["id"], self.view["versionId"])

    @property
    def tags(self) -> Sequence[str]:
        return self.view.get("tags") or ()

    @property
    def status(self) -> str:
        return str(self.view["status"])

    @property
    def is_deployed(self) -> bool:
        return self.status != "INACTIVE"


class MemberChange(NamedTuple):
    """A member that a step changes; `None` is a member that is not there."""

    path: str
    before: object
    after: object


class StepKind(Enum):
    """What a step does; the values are for people."""

    CREATE = "create the function"
    ADD = "create a version"
    UPDATE = "update the version"
    DEPLOY = "deploy"
    SCALE = "change the number of instances"
    AWAIT = "wait until it is ACTIVE"
    UNDEPLOY = "undeploy, gracefully"
    AWAIT_GONE = "wait until its requests have ended"
    DELETE = "delete the version"


WAITS = frozenset({StepKind.AWAIT, StepKind.AWAIT_GONE})
"""Steps that change nothing."""


@dataclass(frozen=True, slots=True)
class ApplyStep:
    """One call of the API, or waiting. ``ref`` is `None` for the version that the plan creates."""

    kind: StepKind
    ref: Ref | None = None
    body: Json | None = None
    changes: tuple[MemberChange, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """The steps for one function, in their order; ``wanted`` is `None` if it is to go."""

    name: str
    wanted: WantedFunction | None
    steps: tuple[ApplyStep, ...]

    @property
    def changes_anything(self) -> bool:
        return any(step.kind not in WAITS for step in self.steps)


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """``functions`` are those of the documents, ``removals`` those that only the set has.

    ``left`` are names that would be removed with prune.
    """

    functions: tuple[FunctionPlan, ...]
    removals: tuple[FunctionPlan, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def changes_anything(self) -> bool:
        return any(plan.changes_anything for plan in (*self.functions, *self.removals))


class PlanError(Exception):
    """The documents cannot be applied; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """``set_name`` names the set. ``prunes``: what it has and needs not is deleted.

    ``waits``: the steps end with waiting. ``salt`` returns `SALT_BYTES` random bytes.
    """

    set_name: str
    prunes: bool
    waits: bool
    salt: Callable[[], bytes]

    @property
    def tag(self) -> str:
        """The tag of versions of the set."""
        return f"{TAG_PREFIX}:{self.set_name}"


def make_plan(
    wanted: Iterable[WantedFunction], found: Sequence[FoundVersion], options: PlanOptions
) -> ApplyPlan:
    """Return what to do. ``found`` are all versions of the account, oldest first.

    Raises `PlanError` for a function that exists and is not of the set.
    """
    own: dict[str, list[FoundVersion]] = {}
    for version in found:
        if options.tag in version.tags:
            own.setdefault(version.ref.function_id, []).append(version)
    plans = []
    for function in wanted:
        function_id = next((id_ for id_, of in own.items() if _is_named(of, function.name)), None)
        if function_id is None:
            _check_free(function, found, options)
        plans.append(_plan(function, own.pop(function_id, []) if function_id else [], options))
    if not options.prunes:
        return ApplyPlan(tuple(plans), left=tuple(str(of[-1].view["name"]) for of in own.values()))
    return ApplyPlan(tuple(plans), tuple(_removal(versions) for versions in own.values()))


def _is_named(versions: Sequence[FoundVersion], name: str) -> bool:
    return any(version.view["name"] == name for version in versions)


def _check_free(
    wanted: WantedFunction, found: Iterable[FoundVersion], options: PlanOptions
) -> None:
    for version in found:
        if version.view["name"] == wanted.name:
            raise PlanError(
                f"{wanted.where}: there is a function {wanted.name} that is not of the set "
                f"{options.set_name}. To take it into the set, give its version the tag "
                f"{options.tag} with 'gateway functions update'"
            )


def _plan(
    wanted: WantedFunction, versions: Sequence[FoundVersion], options: PlanOptions
) -> FunctionPlan:
    current = _current(wanted, versions)
    steps: list[ApplyStep] = []
    if current is None:
        steps.append(_creation(wanted, versions, options))
    elif changes := _changes(current, wanted, options):
        body = {change.path: _request_value(change) for change in changes}
        steps.append(ApplyStep(StepKind.UPDATE, current.ref, body, _flat(changes)))
    ref = None if current is None else current.ref
    others = [version for version in versions if version is not current]
    replaced = [version for version in others if version.is_deployed]
    if wanted.gpu_specs:
        steps += _deployment_steps(wanted, current, replaced)
        if replaced or options.waits:
            steps.append(ApplyStep(StepKind.AWAIT, ref))
    elif current is not None and current.is_deployed:
        replaced.append(current)
    steps += [ApplyStep(StepKind.UNDEPLOY, version.ref) for version in replaced]
    leaving = [
        version
        for version in versions
        if version in replaced or (options.prunes and version is not current)
    ]
    steps += _leaving_steps(leaving, options, current)
    return FunctionPlan(wanted.name, wanted, tuple(steps))


def _leaving_steps(
    leaving: Iterable[FoundVersion], options: PlanOptions, current: FoundVersion | None
) -> Iterator[ApplyStep]:
    """Yield what follows on undeploying versions; the current one may be undeployed, and stays."""
    for version in leaving:
        is_deleted = options.prunes and version is not current
        if is_deleted or options.waits:
            yield ApplyStep(StepKind.AWAIT_GONE, version.ref)
        if is_deleted:
            yield ApplyStep(StepKind.DELETE, version.ref)


def _removal(versions: Sequence[FoundVersion]) -> FunctionPlan:
    deployed = [version for version in versions if version.is_deployed]
    steps = [ApplyStep(StepKind.UNDEPLOY, version.ref) for version in deployed]
    for version in versions:
        steps.append(ApplyStep(StepKind.AWAIT_GONE, version.ref))
        steps.append(ApplyStep(StepKind.DELETE, version.ref))
    return FunctionPlan(str(versions[-1].view["name"]), None, tuple(steps))


def _current(wanted: WantedFunction, versions: Sequence[FoundVersion]) -> FoundVersion | None:
    """Return the version to keep: one that serves and can go on, else one that can be deployed."""
    alike = [version for version in reversed(versions) if is_alike(version, wanted)]
    for version in alike:
        if version.status not in {"INACTIVE", "ERROR"} and (
            not wanted.gpu_specs or _pairs(wanted, version) is not None
        ):
            return version
    return next((version for version in alike if version.status in {"INACTIVE", "ERROR"}), None)


def is_alike(version: FoundVersion, wanted: WantedFunction) -> bool:
    """Whether the version has all that is wanted of what cannot be changed."""
    same = all(_fixed(version.view, name) == _fixed(wanted.spec, name) for name in _FIXED)
    loses_priorities = "llmInvocationConfig" in version.view and (
        "llmInvocationConfig" not in wanted.spec
    )
    return same and not loses_priorities and _has_secrets(version, wanted)


def _fixed(spec: Json, name: str) -> object:
    """Return a member of a version for comparison."""
    value = spec.get(name, _DEFAULTS.get(name))
    if name == "containerEnvironment":
        return sorted((entry["key"], entry["value"]) for entry in value or ())
    return _plain(value)


def _creation(
    wanted: WantedFunction, versions: Sequence[FoundVersion], options: PlanOptions
) -> ApplyStep:
    tags = [*_user_tags(wanted.spec), options.tag]
    if wanted.secrets:
        tags.append(_secrets_tag(wanted.secrets, options.salt()))
    body = {**wanted.spec, "tags": tags}
    if wanted.secrets:
        body["secrets"] = [{"name": name, "value": wanted.secrets[name]} for name in wanted.secrets]
    if not versions:
        return ApplyStep(StepKind.CREATE, None, body, _flat(_members({}, wanted.spec)))
    last = next((version for version in reversed(versions) if version.is_deployed), versions[-1])
    changes = [*_members(last.view, wanted.spec)]
    if not _has_secrets(last, wanted):
        # Values are never shown, and neither are those of before.
        changes.append(MemberChange("secrets", "(other values)", ", ".join(wanted.secrets)))
    function_id = last.ref.function_id
    return ApplyStep(StepKind.ADD, Ref(function_id, ""), body, _flat(changes))


def _members(before: Json, after: Json) -> Iterator[MemberChange]:
    for name in (*_FIXED, *CHANGEABLE):
        old, new = _plain(before.get(name)), _plain(after.get(name))
        if name == "tags":
            old, new = _user_tags(before), _user_tags(after)
        if (old or None) != (new or None):
            yield MemberChange(name, old, new)


def _changes(
    current: FoundVersion, wanted: WantedFunction, options: PlanOptions
) -> list[MemberChange]:
    """Return the members that the API has to change."""
    changes = [
        MemberChange(name, current.view.get(name), wanted.spec.get(name))
        for name in CHANGEABLE
        if name != "tags" and _plain(current.view.get(name)) != _plain(wanted.spec.get(name))
    ]
    kept = [tag for tag in current.tags if tag.startswith(_SECRETS_TAG)]
    tags = [*_user_tags(wanted.spec), options.tag, *kept]
    if set(tags) != set(current.tags):
        changes.append(MemberChange("tags", list(current.tags), tags))
    return changes


def _request_value(change: MemberChange) -> object:
    """Return the value of a change in a request; no origins takes ``cors`` away."""
    if change.after is None and change.path == "cors":
        return {"origins": []}
    return change.after


def _deployment_steps(
    wanted: WantedFunction, current: FoundVersion | None, replaced: Sequence[FoundVersion]
) -> Iterator[ApplyStep]:
    """Yield what makes the deployment of the current version, or the one to create, as wanted."""
    ref = None if current is None else current.ref
    if current is None or current.status in {"INACTIVE", "ERROR"}:
        before = _shown_specs(wanted, replaced[-1]) if replaced else None
        changes = _flat([MemberChange("deploymentSpecifications", before, list(wanted.gpu_specs))])
        body = {"deploymentSpecifications": list(wanted.gpu_specs)}
        yield ApplyStep(StepKind.DEPLOY, ref, body, changes)
        return
    pairs = _pairs(wanted, current)
    assert pairs is not None
    specs, changed = [], []
    for index, (stored, spec) in enumerate(pairs):
        numbers = {name: spec.get(name, 1) for name in _NUMBERS}
        specs.append({"gpuSpecificationId": stored["gpuSpecificationId"], **numbers})
        changed += [
            MemberChange(f"deploymentSpecifications.{index}.{name}", stored.get(name), number)
            for name, number in numbers.items()
            if stored.get(name) != number
        ]
    if changed:
        yield ApplyStep(StepKind.SCALE, ref, {"deploymentSpecifications": specs}, tuple(changed))


def _shown_specs(wanted: WantedFunction, version: FoundVersion) -> list[Json]:
    """Return the GPU specifications of a version that is replaced, without what the API added."""
    stored = (version.deployment or {}).get("deploymentSpecifications") or ()
    names = {name for spec in wanted.gpu_specs for name in spec} | {"gpu", *_NUMBERS[:2]}
    return [{name: spec[name] for name in spec if name in names} for spec in stored]


def _pairs(wanted: WantedFunction, version: FoundVersion) -> list[tuple[Json, Json]] | None:
    """Return stored and wanted GPU specifications that differ in numbers only; `None`: others."""
    stored = list((version.deployment or {}).get("deploymentSpecifications") or ())
    if len(stored) != len(wanted.gpu_specs):
        return None
    pairs = []
    for spec in wanted.gpu_specs:
        same = next((one for one in stored if _is_same_place(one, spec)), None)
        if same is None:
            return None
        stored.remove(same)
        pairs.append((same, spec))
    return pairs


def _is_same_place(stored: Json, wanted: Json) -> bool:
    names = (*_PLACES, "instanceType") if wanted.get("instanceType") else _PLACES
    return all(_place(stored.get(name)) == _place(wanted.get(name)) for name in names)


def _place(value: object) -> object:
    """Return a member of a GPU specification for comparison: names are the same in any case."""
    if isinstance(value, str):
        return value.strip().lower() or None
    return None if value == 1 else _plain(value) or None


def _user_tags(spec: Json) -> list[str]:
    return [tag for tag in spec.get("tags") or () if not tag.startswith(TAG_PREFIX)]


def _has_secrets(version: FoundVersion, wanted: WantedFunction) -> bool:
    """Whether the version was created with the secrets that are wanted."""
    tag = next((tag for tag in version.tags if tag.startswith(_SECRETS_TAG)), None)
    if tag is None or not wanted.secrets:
        return tag is None and not wanted.secrets
    try:
        salt = bytes.fromhex(tag.removeprefix(_SECRETS_TAG).partition(":")[0])
    except ValueError:
        return False
    return compare_digest(tag.encode(), _secrets_tag(wanted.secrets, salt).encode())


def _secrets_tag(secrets: Mapping[str, str], salt: bytes) -> str:
    """Return a tag that tells whether secrets are the same, and is slow to guess them by."""
    data = orjson.dumps(sorted(secrets.items()))
    digest = hashlib.scrypt(data, salt=salt, n=2**14, r=8, p=1, dklen=16)
    return f"{_SECRETS_TAG}{salt.hex()}:{digest.hex()}"


def _plain(value: Any) -> Any:
    """Return a value without members that are empty: responses fill some in, or leave them out."""
    if isinstance(value, Mapping):
        members = {name: _plain(member) for name, member in value.items()}
        return {name: member for name, member in members.items() if not _is_empty(member)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _flat(changes: Iterable[MemberChange]) -> tuple[MemberChange, ...]:
    """Return changes member by member, down to those that differ."""
    return tuple(flat for change in changes for flat in _flatten(change))


def _flatten(change: MemberChange) -> Iterator[MemberChange]:
    path, before, after = change
    old, new = _by_name(before), _by_name(after)
    if not old and not new:
        if before != after:
            yield change
        return
    if (old is None and before) or (new is None and after):
        yield change
        return
    for name in dict.fromkeys((*(old or {}), *(new or {}))):
        yield from _flatten(
            MemberChange(f"{path}.{name}", (old or {}).get(name), (new or {}).get(name))
        )


def _by_name(value: object) -> Mapping[str, object] | None:
    """Return the members of an object, or the items of a list by their name; `None` for others."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        if all("key" in item and "value" in item for item in value):
            return {str(item["key"]): item["value"] for item in value}
        return {str(index): item for index, item in enumerate(value)}
    return None
