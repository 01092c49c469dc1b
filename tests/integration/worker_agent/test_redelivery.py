"""Requests that were delivered before: the agent asks their gateway whether to run them."""

import asyncio
import time

import pytest

from tests.integration.worker_agent.harness import running_agent
from tests.support.raw_server import OK, Peer
from tests.support.waiting import until


class Server:
    """An inference server that counts its requests and responds when it may."""

    def __init__(self) -> None:
        self.requests = 0
        self.may_respond = asyncio.Event()
        self.may_respond.set()

    async def __call__(self, peer: Peer) -> None:
        await peer.head()
        self.requests += 1
        await self.may_respond.wait()
        await peer.send(OK)


async def test_a_first_delivery_is_run_without_a_question() -> None:
    server = Server()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        assert await agent.answer(expected, lease) == (200, b"{}")
        assert agent.gateway.runs == []


@pytest.mark.parametrize("status", [200, 204, 404, 405])
async def test_a_second_delivery_is_run_if_the_gateway_says_so_or_does_not_know(
    status: int,
) -> None:
    server = Server()
    async with running_agent(server) as agent:
        agent.gateway.run_status = status
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(), deliveries=2)
        assert await agent.answer(expected, lease) == (200, b"{}")
        (asked,) = agent.gateway.runs
        assert asked[b"nvcf-reqid"] == expected.request_id.encode()
        assert asked[b"nvcf-deliveries"] == b"2"
        assert b"nvcf-running" not in asked


@pytest.mark.parametrize(("status", "end"), [(410, "ack"), (409, "nak"), (503, "nak")])
async def test_a_second_delivery_is_not_run_if_the_gateway_says_so(status: int, end: str) -> None:
    server = Server()
    async with running_agent(server) as agent:
        agent.gateway.run_status = status
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(), deliveries=3)
        await lease.ended.wait()
        assert lease.calls == [end]
        await until(lambda: agent.queue.free == 4, what="its slot")
        assert server.requests == 0


@pytest.mark.parametrize(("status", "runs"), [(204, 1), (410, 0)])
async def test_a_request_that_is_run_once_is_asked_about_at_its_first_delivery(
    status: int, runs: int
) -> None:
    server = Server()
    async with running_agent(server) as agent:
        agent.gateway.run_status = status
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(headers=((b"nvcf-allow-rerun", b"once"),)))
        await lease.ended.wait()
        assert (lease.calls, server.requests) == (["ack"], runs)
        assert [asked[b"nvcf-deliveries"] for asked in agent.gateway.runs] == [b"1"]


async def test_the_gateway_is_told_that_a_request_that_is_run_once_found_no_server() -> None:
    server = Server()
    async with running_agent(server) as agent:
        agent.server.stop()
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(headers=((b"nvcf-allow-rerun", b"once"),)))
        await lease.ended.wait()
        assert lease.calls == ["nak"]
        await until(lambda: len(agent.gateway.runs) == 2, what="the news")
        assert agent.gateway.runs[1][b"nvcf-unrun"] == b"1"


@pytest.mark.parametrize("stored_late_s", [9.0, 2.5])
async def test_a_request_that_was_stored_long_after_its_publish_is_asked_about(
    stored_late_s: float,
) -> None:
    """Its gateway may have been cut off before it heard of that, and have told its client."""
    server = Server()
    async with running_agent(server) as agent:
        agent.gateway.run_status = 410
        late = agent.gateway.expect()
        stored_at = time.time() - 9.0 + stored_late_s
        lease = agent.lease(late.envelope(age_s=9.0), stored_at=stored_at)
        await lease.ended.wait()
        assert (lease.calls, server.requests) == (["ack"], 0)
        assert agent.gateway.runs[0][b"nvcf-deliveries"] == b"1"


async def test_a_request_that_only_waited_long_is_run_without_a_question() -> None:
    server = Server()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(age_s=9.0), stored_at=time.time() - 9.0)
        assert await agent.answer(expected, lease) == (200, b"{}")
        assert agent.gateway.runs == []


@pytest.mark.parametrize("age_s", [0.0, 9.0])
async def test_a_first_delivery_that_may_be_none_is_asked_about(age_s: float) -> None:
    server = Server()
    async with running_agent(server) as agent:
        agent.gateway.run_status = 410
        agent.intake.on_bound()
        answered = agent.gateway.expect()
        stored_at = time.time() - age_s
        lease = agent.lease(answered.envelope(age_s=age_s), stored_at=stored_at, knows_first=False)
        await lease.ended.wait()
        assert (lease.calls, server.requests) == (["ack"], 0)
        assert agent.gateway.runs[0][b"nvcf-deliveries"] == b"1"


async def test_a_second_delivery_whose_gateway_is_gone_is_not_run() -> None:
    server = Server()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        await agent.gateway.stop()
        lease = agent.lease(expected.envelope(), deliveries=2)
        await lease.ended.wait()
        assert (lease.calls, server.requests) == (["ack"], 0)


async def test_a_cancel_while_the_agent_asks_ends_the_lease() -> None:
    server = Server()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope(), deliveries=2)
        agent.intake.on_cancel(expected.request_id)
        assert lease.calls == ["ack"]
        await until(lambda: agent.slots.running == 0, what="its slot")
        assert server.requests == 0


async def test_after_a_loss_the_gateway_is_told_what_runs() -> None:
    server = Server()
    server.may_respond.clear()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        await until(lambda: server.requests)
        agent.intake.on_loss()
        await until(lambda: agent.gateway.runs)
        assert agent.gateway.runs[0][b"nvcf-running"] == b"1"
        server.may_respond.set()
        assert await agent.answer(expected, lease) == (200, b"{}")


async def test_after_a_standstill_what_another_worker_runs_is_dropped() -> None:
    server = Server()
    server.may_respond.clear()
    async with running_agent(server) as agent:
        agent.gateway.run_status = 410
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        await until(lambda: server.requests)
        agent.intake.on_standstill()
        await agent.intake.wait_drained()
        # The lease may be the other worker's. The inference server still has the request.
        assert (lease.calls, agent.slots.running) == ([], 1)
        server.may_respond.set()
        await until(lambda: agent.slots.running == 0)


async def test_all_leases_are_renewed_also_of_what_is_asked_about() -> None:
    server = Server()
    server.may_respond.clear()
    async with running_agent(server) as agent:
        expected, asked = agent.gateway.expect(), agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        await until(lambda: server.requests)
        other = agent.lease(asked.envelope(), deliveries=2)
        agent.intake.renew()
        assert [lease.calls, other.calls] == [["in_progress"], ["in_progress"]]
        server.may_respond.set()
        for request, of_request in ((expected, lease), (asked, other)):
            assert await agent.answer(request, of_request) == (200, b"{}")


async def test_after_a_standstill_what_was_not_sent_is_dropped() -> None:
    server = Server()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        # No connection is open yet, so the request waits for one.
        lease = agent.lease(expected.envelope())
        agent.intake.on_standstill()
        await agent.intake.wait_drained()
        assert (lease.calls, server.requests, agent.slots.running) == ([], 0, 0)


async def test_a_request_of_a_silent_gateway_is_dropped_when_its_window_is_over() -> None:
    server = Server()
    async with running_agent(server) as agent:
        agent.gateway.run_status = 503
        expected = agent.gateway.expect()
        window = ((b"nvcf-poll-seconds", b"3"),)
        ended = agent.lease(expected.envelope(headers=window, age_s=60.0), deliveries=2)
        await ended.ended.wait()
        current = agent.lease(expected.envelope(headers=window), deliveries=2)
        await current.ended.wait()
        assert (ended.calls, current.calls, server.requests) == (["ack"], ["nak"], 0)
        await until(lambda: agent.slots.running == 0, what="their slots")


async def test_a_request_that_comes_twice_while_the_agent_asks_is_run_once() -> None:
    server = Server()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        agent.lease(expected.envelope(), deliveries=2)
        lease = agent.lease(expected.envelope())
        assert await agent.answer(expected, lease) == (200, b"{}")
        assert server.requests == 1
        await until(lambda: agent.queue.free == 4, what="the slot of the first lease")


async def test_what_was_reported_after_a_loss_is_reported_again_while_it_runs() -> None:
    server = Server()
    server.may_respond.clear()
    async with running_agent(server) as agent:
        expected = agent.gateway.expect()
        lease = agent.lease(expected.envelope())
        await until(lambda: server.requests)
        agent.intake.on_loss()
        await until(lambda: len(agent.gateway.runs) == 1)
        agent.intake.tick()
        await until(lambda: len(agent.gateway.runs) == 2)
        server.may_respond.set()
        assert await agent.answer(expected, lease) == (200, b"{}")
        agent.intake.tick()
        assert len(agent.gateway.runs) == 2
