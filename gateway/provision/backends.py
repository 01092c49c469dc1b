"""One backend made of several: an instance is at the one that runs its cluster."""

from collections.abc import Iterable, Mapping

from gateway.domain.model import Instance
from gateway.provision.backend import Backend, InstanceStatus, LaunchSpec, OnChange


class Backends:
    """A `gateway.provision.backend.Backend` that routes by the cluster of a `GpuSpec`.

    An instance whose cluster is not configured any more is started at the first backend, which
    says why it cannot run there.
    """

    def __init__(self, first: Backend, of_cluster: Mapping[str, Backend] | None = None) -> None:
        """``of_cluster`` holds the backends of clusters that ``first`` does not run, by name."""
        self._first = first
        self._of_cluster = dict(of_cluster or {})
        others = [backend for backend in self._of_cluster.values() if backend is not first]
        self._all = tuple({id(backend): backend for backend in (first, *others)}.values())

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` whenever a status changes at any of the backends."""
        for backend in self._all:
            backend.listen(on_change)

    async def adopt(self) -> None:
        """Take over at every backend what no process has. Raises `OSError`."""
        for backend in self._all:
            await backend.adopt()

    def release(self) -> None:
        """Leave all instances to the process that adopts them next."""
        for backend in self._all:
            backend.release()

    def record(self, instance_id: str) -> Instance | None:
        """Return the record with which an instance was started; `None` if no backend has it."""
        records = (backend.record(instance_id) for backend in self._all)
        return next((record for record in records if record is not None), None)

    def is_known(self, cluster: str) -> bool:
        """Whether the backend of ``cluster`` knows its instances."""
        return self._of_cluster.get(cluster, self._first).is_known(cluster)

    def version_ids(self) -> Iterable[tuple[str, str]]:
        """Return the ids of every version that has an instance of this process."""
        return {ids for backend in self._all for ids in backend.version_ids()}

    def statuses(self, version_id: str) -> Mapping[str, InstanceStatus]:
        """Return the statuses of one version's instances, by instance id."""
        if len(self._all) == 1:
            return self._first.statuses(version_id)
        return {
            instance_id: status
            for backend in self._all
            for instance_id, status in backend.statuses(version_id).items()
        }

    async def start(self, launch: LaunchSpec) -> None:
        """Start an instance at the backend of its cluster."""
        await self._of_cluster.get(launch.spec.backend, self._first).start(launch)

    def stop(self, instance_id: str, grace_s: float) -> None:
        """Stop an instance at the backend that has it; the others do not know its id."""
        for backend in self._all:
            backend.stop(instance_id, grace_s)

    def fail(self, instance_id: str, reason: str) -> None:
        """End an unhealthy instance at the backend that has it."""
        for backend in self._all:
            backend.fail(instance_id, reason)

    def log_tail(self, instance_id: str) -> str:
        """Return the last lines of an instance's log; empty if there are none."""
        tails = (backend.log_tail(instance_id) for backend in self._all)
        return next((tail for tail in tails if tail), "")
