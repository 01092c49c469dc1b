"""When a worker drops or renews its leases after a standstill."""

import asyncio

from queueing.standstill import WATCH_S, Standstill


class Worker:
    """A `queueing.standstill.Watched` that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bytes = 0
        self.is_idle = False
        self.has_read = asyncio.Event()

    def is_silent_usual(self) -> bool:
        return self.is_idle

    def read_bytes(self) -> int:
        return self.bytes

    def heartbeat_s(self) -> float:
        return 5.0

    async def read_all(self) -> None:
        self.calls.append("read all")
        await self.has_read.wait()

    def stood_still(self, seconds: float) -> None:
        self.calls.append(f"stood still {seconds:g}")

    def all_read(self) -> None:
        self.calls.append("all read")

    def renew_all(self) -> None:
        self.calls.append("renew")


class Watch:
    """A standstill of a lease of 20 s, and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.worker = Worker()
        self.standstill = Standstill(self.worker, "q", lambda: self.now)
        self.standstill.set_lease(20.0)
        self.standstill.start()

    def passes(self, seconds: float, *, is_read: bool = True) -> None:
        """Let so much time pass in steps of the watcher."""
        for _ in range(round(seconds / WATCH_S)):
            self.now += WATCH_S
            self.worker.bytes += is_read
            self.standstill.watch()

    def stands(self, seconds: float) -> None:
        """Let the process stand still."""
        self.now += seconds
        self.worker.bytes += 1
        self.standstill.watch()

    async def settled(self) -> list[str]:
        """Return what the worker was told, once the reads of all tasks have ended."""
        self.worker.has_read.set()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        return self.worker.calls


async def test_as_long_as_something_arrives_leases_are_only_renewed_in_time() -> None:
    watch = Watch()
    watch.passes(17.0)
    assert not watch.standstill.may_be_over()
    assert await watch.settled() == ["renew", "renew"]


async def test_after_a_long_standstill_what_waits_in_the_socket_is_dropped() -> None:
    watch = Watch()
    watch.stands(15.0)
    assert watch.standstill.may_be_over()
    assert await watch.settled() == [
        "renew",
        "stood still 15",
        "renew",
        "read all",
        "all read",
    ]
    assert not watch.standstill.may_be_over()


async def test_after_a_short_one_leases_are_renewed_before_and_after_reading() -> None:
    watch = Watch()
    watch.stands(2.0)
    assert await watch.settled() == ["renew", "read all", "renew"]
    assert not watch.standstill.may_be_over()


async def test_a_connection_that_brings_nothing_counts_as_a_standstill() -> None:
    watch = Watch()
    watch.passes(15.0, is_read=False)
    assert watch.standstill.may_be_over()
    assert "stood still 15" in await watch.settled()


async def test_silence_is_fine_while_nothing_is_expected() -> None:
    watch = Watch()
    watch.worker.is_idle = True
    watch.passes(60.0, is_read=False)
    assert not watch.standstill.may_be_over()
    assert set(await watch.settled()) == {"renew"}
