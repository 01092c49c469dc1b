"""Calls that come over a channel, beside the pull of the queue."""

import asyncio

from tests.integration.worker_agent.harness import running_agent
from tests.support.envelopes import REQUEST_ID
from tests.support.links import RecordedLink
from tests.support.raw_server import Peer
from tests.support.waiting import until
from wire.channel import HEAD_BYTES, CallFrame, Kind, Reason, encode_call
from wire.envelope import encode_call_head
from worker_agent.attach.channel import AgentChannel

LONG_S = 0.1
"""Longer than any call for which a worker would let its pull stand without a thought."""


def call(number: int) -> CallFrame:
    head = encode_call_head(
        nca_id="account", subject="caller", method=b"GET", path=b"/", headers=[]
    )
    request_id = REQUEST_ID[:-1].encode() + b"%d" % number
    frame = encode_call(number, request_id, 0, head, b"", has_rest=False, confirmed=0)
    assert frame is not None
    return CallFrame(frame[HEAD_BYTES:])


async def test_calls_that_take_every_slot_cancel_no_pull() -> None:
    """NATS may lose what it delivers to a cancelled pull, until its lease ends."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(LONG_S)
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.closed()

    link = RecordedLink()
    async with running_agent(serve) as agent:
        channel = AgentChannel(b"http://127.0.0.1:1", agent.intake, lambda _: None)
        channel.linked(link, "key", is_resumed=False)
        agent.intake.sweep()
        slots = agent.slots.limit
        for number in range(1, slots + 2):
            channel.running[number] = str(number)
            agent.intake.on_call(channel, number, call(number))
        assert agent.slots.running == slots
        assert agent.intake.offered() == 0
        await until(lambda: agent.slots.running == agent.slots.jobs == 0)
        # The others end without a gateway process that takes their responses.
        handed_back = (Kind.BUSY, slots + 1, bytes((Reason.HANDED_BACK,)))
        assert [one for one in link.frames if one[2] == handed_back[2]] == [handed_back]
        assert min(agent.queue.wanted) > 0
        channel.running.clear()
