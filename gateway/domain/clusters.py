"""Where instances can run: cluster groups, their GPUs and instance types.

The API calls a cluster group a *backend* (`docs/wire.md` §11.1).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

from gateway.domain.documents import EMPTY
from gateway.errors import BadRequest

_MAX_SHOWN = 20
_SHOWN_CHARS = 200

Value = TypeVar("Value")


class VersionSource(NamedTuple):
    """What a version consists of: a container image, or a Helm chart."""

    image: str
    is_chart: bool = False


def source_of(spec: Mapping[str, object]) -> VersionSource:
    """Return the source that a version's spec, in the form of the API, names."""
    image = spec.get("containerImage")
    return VersionSource(image if isinstance(image, str) else "", is_chart="helmChart" in spec)


def find_image(images: Mapping[str, Value], image: str) -> Value | None:
    """Return the value of the first pattern that matches ``image``; ``*`` stands for any text."""
    return next((found for key, found in images.items() if fnmatchcase(image, key)), None)


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A machine with GPUs of one kind, or a share of such a machine."""

    name: str
    description: str = ""
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU model and the instance types that offer it; at least one."""

    name: str
    instance_types: tuple[InstanceType, ...]

    def default_type(self) -> InstanceType:
        """Return the type that is used when a request names none."""
        return next(
            (kind for kind in self.instance_types if kind.is_default), self.instance_types[0]
        )


@dataclass(frozen=True, slots=True)
class ClusterGroup:
    """Clusters between which a deployment does not distinguish.

    ``backend`` names what runs instances there (``processes``, ``kubernetes`` for any image, or
    ``external`` where workers that others start register as instances of any version).
    ``clusters`` are the names of the members; if empty, the group is its only member. ``accounts``
    may use it; if empty, all may.
    ``images`` are patterns of the container images that it has a command for.
    """

    name: str
    backend: str
    gpus: tuple[Gpu, ...]
    clusters: tuple[str, ...] = ()
    accounts: frozenset[str] = field(default=EMPTY)
    images: tuple[str, ...] = ()

    def runs(self, source: VersionSource) -> bool:
        """Whether it can run instances of a version."""
        if self.is_external:
            return True
        if source.is_chart or not source.image:
            return False
        if self.backend == "kubernetes":
            return True
        return find_image(dict.fromkeys(self.images, True), source.image) is True

    @property
    def is_external(self) -> bool:
        return self.backend == "external"

    def gpu(self, name: str) -> Gpu | None:
        """Return the GPU called ``name``, ignoring case."""
        wanted = name.lower()
        return next((gpu for gpu in self.gpus if gpu.name.lower() == wanted), None)

    def member_names(self) -> tuple[str, ...]:
        return self.clusters or (self.name,)


@dataclass(frozen=True, slots=True)
class Choice:
    """Where instances of one GPU specification run, spelled as configured."""

    group: str
    gpu: str
    instance_type: str
    is_external: bool = False


class Clusters:
    """The cluster groups of this installation."""

    __slots__ = ("groups",)

    def __init__(self, groups: Iterable[ClusterGroup] = ()) -> None:
        self.groups = tuple(groups)

    def group(self, name: str) -> ClusterGroup | None:
        """Return the group called ``name``, ignoring case."""
        wanted = name.lower()
        return next((group for group in self.groups if group.name.lower() == wanted), None)

    def of(self, account: str) -> tuple[ClusterGroup, ...]:
        """Return the groups that ``account`` may use."""
        return tuple(
            group for group in self.groups if not group.accounts or account in group.accounts
        )

    def choose(
        self,
        account: str,
        gpu: str,
        *,
        backend: str = "",
        clusters: Iterable[str] = (),
        instance_type: str = "",
    ) -> Choice:
        """Return where to run instances with ``gpu``. Names are matched ignoring case.

        Without ``backend`` and ``clusters``, the first group with the GPU and type is chosen.
        Raises `BadRequest` with what is available if there is none.
        """
        groups = _select_groups(self.of(account), backend, {name.lower() for name in clusters})
        offers = [(group, model) for group in groups if (model := group.gpu(gpu)) is not None]
        if not offers:
            known = sorted({model.name for group in groups for model in group.gpus})
            raise BadRequest(f"The GPU is not known; there are: {', '.join(known)}")
        for group, model in offers:
            kind = _instance_type(model, instance_type)
            if kind is not None:
                return Choice(group.name, model.name, kind.name, group.is_external)
        types = sorted({kind.name for _, model in offers for kind in model.instance_types})
        raise BadRequest(f"The instance type is not known for this GPU: {', '.join(types)}")

    def that_run(self, source: VersionSource, account: str) -> "Clusters":
        """Return those groups of ``account`` that can run a version."""
        return Clusters(group for group in self.of(account) if group.runs(source))

    def explain(self, source: VersionSource, account: str, group: str) -> str:
        """Return why ``group`` cannot run a version, and what can be run instead."""
        if source.is_chart:
            return "helmChart: no cluster runs Helm charts; give a containerImage"
        image = repr(source.image[:_SHOWN_CHARS])
        others = self.that_run(source, account).groups
        if others:
            return (
                f"containerImage: cluster '{group}' has no command for the image {image}; "
                f"these have one: {_names(others)}"
            )
        known = [f"{pattern} ({one.name})" for one in self.of(account) for pattern in one.images]
        more = f" and {len(known) - _MAX_SHOWN} more" if len(known) > _MAX_SHOWN else ""
        listed = ", ".join(known[:_MAX_SHOWN]) + more if known else "none"
        return (
            f"containerImage: no cluster has a command for the image {image}; "
            f"the images with one are: {listed}"
        )


def _select_groups(
    groups: tuple[ClusterGroup, ...], backend: str, clusters: set[str]
) -> tuple[ClusterGroup, ...]:
    if not groups:
        raise BadRequest("The account has no cluster groups")
    if backend and clusters:
        raise BadRequest("Give either backend or clusters, not both")
    if backend:
        named = tuple(group for group in groups if group.name.lower() == backend.lower())
        if not named:
            raise BadRequest(f"The backend is not known; there are: {_names(groups)}")
        if not named[0].gpus:
            raise BadRequest("The backend has no GPUs")
        return named
    if clusters:
        named = tuple(
            group for group in groups if clusters <= {name.lower() for name in group.member_names()}
        )
        if not named:
            raise BadRequest(f"No cluster group has these clusters; there are: {_names(groups)}")
        return named
    return groups


def _names(groups: tuple[ClusterGroup, ...]) -> str:
    return ", ".join(group.name for group in groups)


def _instance_type(gpu: Gpu, name: str) -> InstanceType | None:
    """Return the type called ``name``; ``default`` or an empty name selects the default type."""
    wanted = name.lower()
    found = next((kind for kind in gpu.instance_types if kind.name.lower() == wanted), None)
    return gpu.default_type() if found is None and wanted in {"", "default"} else found
