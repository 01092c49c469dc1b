"""What an agent does not start, with a real inference server behind it."""

import asyncio

from tests.integration.worker_agent.harness import HandLease, running_agent
from tests.support.raw_server import OK, Peer
from tests.support.waiting import until
from worker_agent.job.states import Outcome

WINDOW_S = 62.0
"""The default poll window with its grace."""


async def test_what_would_be_late_is_acknowledged_unstarted_and_leaves_its_slot() -> None:
    started = 0

    async def serve(peer: Peer) -> None:
        nonlocal started
        while await peer.head():
            started += 1
            await asyncio.sleep(0.3)  # its work
            await peer.send(OK)

    async with running_agent(serve, concurrency=1) as agent:
        expected = agent.gateway.expect()
        assert (await agent.answer(expected, agent.lease(expected.envelope())))[0] == 200
        late = agent.gateway.expect().envelope(age_s=WINDOW_S - 0.2)
        lease = HandLease(late)
        lease.behind = 100
        agent.intake.on_lease(lease)
        assert lease.calls == ["ack"]
        assert agent.queue.free == 1
        ended = agent.lease(agent.gateway.expect().envelope(age_s=WINDOW_S + 1))
        assert ended.calls == ["ack"]
        expected = agent.gateway.expect()
        in_time = agent.lease(expected.envelope(age_s=WINDOW_S - 5))
        assert (await agent.answer(expected, in_time))[0] == 200
        assert started == 2
        outcomes = agent.metrics.registry.exposition().decode()
        assert f'worker_outcome_total{{outcome="{Outcome.LATE.name.lower()}"}} 2' in outcomes


async def test_the_time_that_counts_is_that_to_the_head_of_a_stream() -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
            await asyncio.sleep(0.5)  # the rest of its stream
            await peer.send(b"0\r\n\r\n")

    async with running_agent(serve) as agent:
        for age_s in (0.0, WINDOW_S - 0.4):
            expected = agent.gateway.expect()
            lease = HandLease(expected.envelope(age_s=age_s))
            lease.behind = 100
            agent.intake.on_lease(lease)
            assert (await agent.answer(expected, lease))[0] == 200


async def test_the_gateway_is_told_of_what_would_be_late_long_before_its_window_ends() -> None:
    async def serve(peer: Peer) -> None:
        while await peer.head():
            await asyncio.sleep(1.5)  # its work
            await peer.send(OK)

    async with running_agent(serve) as agent:
        expected = agent.gateway.expect()
        assert (await agent.answer(expected, agent.lease(expected.envelope())))[0] == 200
        # A window that is nearly over needs no report, and a further delivery may be running.
        for age_s, deliveries in ((WINDOW_S - 0.5, 1), (WINDOW_S - 1.4, 2), (WINDOW_S - 1.4, 1)):
            lease = HandLease(agent.gateway.expect().envelope(age_s=age_s))
            lease.behind, lease.deliveries = 100, deliveries
            agent.intake.on_lease(lease)
            await until(lambda lease=lease: lease.calls == ["ack"])
        await until(lambda: agent.gateway.runs, lambda runs: len(runs) == 2)
        assert [
            (headers.get(b"nvcf-late"), headers[b"nvcf-deliveries"])
            for headers in agent.gateway.runs
        ] == [(None, b"2"), (b"1", b"1")]
