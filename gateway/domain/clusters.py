"""Where instances can run: cluster groups, their GPUs and instance types.

The API calls a cluster group a *backend* (`spec/control-plane.md` §1.5).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.domain.documents import NOBODY
from gateway.errors import BadRequest


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A machine, or a share of one, with GPUs of one kind."""

    name: str
    description: str = ""
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU and the instance types that have it; at least one."""

    name: str
    instance_types: tuple[InstanceType, ...]

    def default_type(self) -> InstanceType:
        """Return the type that is taken when none is asked for."""
        return next((one for one in self.instance_types if one.is_default), self.instance_types[0])


@dataclass(frozen=True, slots=True)
class ClusterGroup:
    """Clusters that are the same to whoever deploys.

    ``backend`` names what runs instances there (``processes``). ``clusters`` are the names of its
    members, the group's own name when empty. ``accounts`` may use it: empty means all.
    """

    name: str
    backend: str
    gpus: tuple[Gpu, ...]
    clusters: tuple[str, ...] = ()
    accounts: frozenset[str] = field(default=NOBODY)

    def gpu(self, name: str) -> Gpu | None:
        """Return the GPU called ``name``, in any case."""
        wanted = name.lower()
        return next((gpu for gpu in self.gpus if gpu.name.lower() == wanted), None)

    def member_names(self) -> tuple[str, ...]:
        return self.clusters or (self.name,)


@dataclass(frozen=True, slots=True)
class Choice:
    """Where instances of one GPU specification run, in the clusters' own spelling."""

    group: str
    gpu: str
    instance_type: str


class Clusters:
    """The cluster groups of this installation."""

    __slots__ = ("groups",)

    def __init__(self, groups: Iterable[ClusterGroup] = ()) -> None:
        self.groups = tuple(groups)

    def group(self, name: str) -> ClusterGroup | None:
        """Return the group called ``name``, in any case."""
        wanted = name.lower()
        return next((group for group in self.groups if group.name.lower() == wanted), None)

    def of(self, account: str) -> tuple[ClusterGroup, ...]:
        """Return the groups that ``account`` may use."""
        return tuple(one for one in self.groups if not one.accounts or account in one.accounts)

    def choose(
        self,
        account: str,
        gpu: str,
        *,
        backend: str = "",
        clusters: Iterable[str] = (),
        instance_type: str = "",
    ) -> Choice:
        """Return where to run instances with ``gpu``; all names in any case.

        Without ``backend`` or ``clusters`` the first group that has what is asked for is taken.
        Raises `BadRequest` that says what is not there.
        """
        groups = _named(self.of(account), backend, {name.lower() for name in clusters})
        found = [(group, one) for group in groups if (one := group.gpu(gpu)) is not None]
        if not found:
            known = sorted({one.name for group in groups for one in group.gpus})
            raise BadRequest(f"The GPU is not known; there are: {', '.join(known)}")
        for group, one in found:
            kind = _instance_type(one, instance_type)
            if kind is not None:
                return Choice(group.name, one.name, kind.name)
        types = sorted({kind.name for _, one in found for kind in one.instance_types})
        raise BadRequest(f"The instance type is not known for this GPU: {', '.join(types)}")


def _named(
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
            group for group in groups if clusters <= {one.lower() for one in group.member_names()}
        )
        if not named:
            raise BadRequest(f"No cluster group has these clusters; there are: {_names(groups)}")
        return named
    return groups


def _names(groups: tuple[ClusterGroup, ...]) -> str:
    return ", ".join(group.name for group in groups)


def _instance_type(gpu: Gpu, name: str) -> InstanceType | None:
    """Return the type called ``name``; ``default`` and an empty name are the default one."""
    wanted = name.lower()
    found = next((one for one in gpu.instance_types if one.name.lower() == wanted), None)
    return gpu.default_type() if found is None and wanted in {"", "default"} else found
