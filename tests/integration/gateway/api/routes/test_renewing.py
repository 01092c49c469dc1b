"""Leases of external workers that are renewed without a write for each heartbeat."""

import math
import time
from dataclasses import replace
from functools import partial

import pytest

from gateway.api.renewing import LeaseRenewals
from gateway.domain.catalog import Catalog
from gateway.domain.leases import Leases
from gateway.domain.model import Instance, InstanceKey, Renewals, RenewalsKey
from gateway.domain.readmodel import ReadModel
from gateway.domain.renewals import Renewal, part_of
from gateway.domain.states import is_running
from gateway.errors import StoreUnavailable
from gateway.store.names import CONTROL, INSTANCES
from gateway.store.watcher import Watcher
from runtime.ids import new_uuid
from runtime.tasks import spawn
from tests.support.control import SCOPES, Client
from tests.support.identity import LEASE_S, IdentityPlane
from tests.support.waiting import until
from wire.worker_api import CONNECT_PATH, HEARTBEAT_PATH

PLACE = {"backend": "anywhere", "gpu": "A10G"}


class ConnectedWorker:
    """An external worker that has said once that it is healthy."""

    def __init__(self, plane: IdentityPlane, client: Client, ids: dict[str, str]) -> None:
        self.plane = plane
        self.client = client
        self.instance_id, self.version_id = ids["instanceId"], ids["functionVersionId"]
        self.ids = ids

    async def beat(self, **changes: object) -> int:
        body = {"instanceId": self.instance_id, "healthy": True, "slots": 4, "busy": 0, **changes}
        return (await self.client.post(HEARTBEAT_PATH, body)).status

    def shown(self) -> Instance:
        found = self.plane.catalog.instance(self.version_id, self.instance_id)
        assert found is not None
        return found

    async def stored(self) -> tuple[Instance, int]:
        found = await self.plane.store.get(InstanceKey(self.version_id, self.instance_id))
        assert found is not None
        assert isinstance(found[0], Instance)
        return found[0], found[1]


@pytest.fixture
async def worker(plane: IdentityPlane) -> ConnectedWorker:
    client = await plane.client("has-workers", SCOPES)
    function_id, version_id = await client.deployed(**PLACE)
    catalog = plane.catalog
    await catalog.until(lambda: catalog.deployment(version_id) is not None)
    path = f"/v2/nvcf/registrationTokens/functions/{function_id}/versions/{version_id}"
    token = (await client.post(path, {})).body["token"]
    told = (await plane.holder(token).post(CONNECT_PATH, {})).body
    names = ("instanceId", "functionId", "functionVersionId")
    found = ConnectedWorker(
        plane, plane.holder(told["token"]), {name: told[name] for name in names}
    )
    assert await found.beat() == 200
    await catalog.until(lambda: catalog.instances(version_id) and found.shown().is_healthy)
    return found


async def test_a_heartbeat_without_news_renews_the_lease_and_writes_no_record(
    plane: IdentityPlane, worker: ConnectedWorker
) -> None:
    before, revision = await worker.stored()
    await until(lambda: time.time() > before.lease_until - LEASE_S)
    assert await worker.beat(busy=3) == 200
    beaten_at = time.time()
    await plane.catalog.until(lambda: worker.shown().lease_until > before.lease_until)
    # A third longer than the worker is told.
    latest = beaten_at + LEASE_S * 4 / 3
    assert worker.shown().lease_until in {math.ceil(latest - 1), math.ceil(latest)}
    assert (worker.shown().busy, worker.shown().is_healthy) == (3, True)
    assert (await worker.stored())[1] == revision
    # What is news is written at once, and keeps the lease; a connect keeps the health too.
    assert await worker.beat(slots=2) == 200
    assert (await worker.stored())[0].slots == 2
    assert (await worker.client.post(CONNECT_PATH, worker.ids)).status == 200
    assert (await worker.stored())[0].is_healthy


async def test_another_process_learns_of_the_lease_also_when_it_starts_later(
    plane: IdentityPlane, worker: ConnectedWorker
) -> None:
    before, _ = await worker.stored()
    await until(lambda: time.time() > before.lease_until - LEASE_S)
    assert await worker.beat() == 200
    await plane.catalog.until(lambda: worker.shown().lease_until > before.lease_until)
    other = Catalog(ReadModel())
    watcher = Watcher(plane.store, Leases(other.apply), CONTROL)
    watcher.start()
    try:
        await watcher.loaded.wait()
        found = other.instance(worker.version_id, worker.instance_id)
        assert found == worker.shown()
        assert is_running(replace(found, phase=worker.shown().phase), before.lease_until + 0.5)
        assert await worker.beat(gone=True, stopping=True) == 200
        await until(lambda: other.instances(worker.version_id)[0].has_left)
        assert not is_running(other.instances(worker.version_id)[0], time.time())
    finally:
        await watcher.stop()


async def test_renewals_that_a_process_left_are_deleted_when_they_have_long_ended(
    plane: IdentityPlane,
) -> None:
    dead, alive, mine, name = new_uuid(), new_uuid(), new_uuid(), new_uuid()
    now = int(time.time())
    for process, ends_at in ((dead, now - 61), (alive, now - 10)):
        await plane.store.put(Renewals(process, part_of(name), {name: Renewal(ends_at, 0)}))
    leases = Leases(lambda _: None)
    watcher = Watcher(plane.store, leases, [INSTANCES])
    watcher.start()
    await watcher.loaded.wait()
    renewals = LeaseRenewals(plane.store, leases, mine, 0.3, time.time)
    running = spawn(renewals.run(), "renewals")
    try:
        renewals.renew(name, Renewal(now + 100, 0))

        async def left() -> set[str]:
            return {
                process
                for process in (dead, alive, mine)
                if await plane.store.get(RenewalsKey(process, part_of(name)))
            }

        await until(left, lambda found: found == {alive, mine})
    finally:
        running.cancel()
        await watcher.stop()


async def test_a_record_that_cannot_be_read_does_not_end_the_renewals(
    plane: IdentityPlane,
) -> None:
    dead, name = new_uuid(), new_uuid()
    part, now = part_of(name), int(time.time())
    leases = Leases(lambda _: None)
    leases.apply(Renewals(dead, part, {name: Renewal(now - 61, 0)}))
    await plane.store.put_raw(INSTANCES, f"renewals.{dead}.{part}", b"{}")
    mine = new_uuid()
    renewals = LeaseRenewals(plane.store, leases, mine, 0.3, time.time)
    running = spawn(renewals.run(), "renewals")
    try:

        async def stored() -> int:
            found = await plane.store.get(RenewalsKey(mine, part))
            return found[0].ended_at if found and isinstance(found[0], Renewals) else 0

        # The second is written only if the round of the first has come to its end.
        for lease_until in (now + 100, now + 200):
            renewals.renew(name, Renewal(lease_until, 0))
            await until(stored, partial(int.__eq__, lease_until))
    finally:
        running.cancel()


async def test_while_the_store_is_away_heartbeats_are_not_taken_lightly() -> None:
    class Away:
        """A store that does not take one part until it is back."""

        is_back = False

        def __init__(self) -> None:
            self.written: set[str] = set()

        async def put(self, record: Renewals, revision: int | None = None) -> int:
            if record.part == "0" and not self.is_back:
                raise StoreUnavailable
            self.written.add(record.part)
            return 1

        async def get(self, key: object) -> None:
            return None

        async def delete(self, key: object, revision: int | None = None) -> int:
            return 1

    store = Away()
    renewals = LeaseRenewals(store, Leases(lambda _: None), new_uuid(), 0.1, time.time)
    running = spawn(renewals.run(), "renewals")
    try:
        ids = {part_of(one): one for one in (new_uuid() for _ in range(100))}
        renewal = Renewal(int(time.time()) + 100, 0)
        renewals.renew(ids["0"], renewal)
        await until(lambda: not renewals.is_storing)
        renewals.renew(ids["1"], renewal)
        await until(lambda: "1" in store.written)
        assert not renewals.is_storing
        store.is_back = True
        # Nobody sends another heartbeat: what was noted is written none the less.
        await until(lambda: renewals.is_storing)
    finally:
        running.cancel()
