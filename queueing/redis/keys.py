r"""The names of one queue in Redis.

All begin with ``rq:{<region>.<versionId>}``; the part in braces decides the slot, so that all are
on one node of a cluster:

    (nothing)  hash: epoch, run (the life of the server), gen (how many lives the queue has seen),
               seq and high (highest sequence stored, leased), leases, lease (ms), p-… (publishes
               of each process)
    :e         hash: request id → "seq stored-at-ms gen runs\n" and the envelope
    :w         sorted set: ids that wait, by sequence
    :r :d      sorted sets: ids given back, by sequence; to be given back later, by time in ms
    :t         hash: id → "deliveries:runs" of requests that were given back
    :l         sorted set: tokens of leases, "id:deliveries:runs:worker", by their end in ms
    :i         list: workers that wait, one entry for each request that they want
    :h         sorted set: workers, by the time in ms at which they were last heard of
    :z         sorted set: ids whose every run has ended, by the time in ms
    :c:<name>  channel of a worker: what is leased to it while it waits, "token" and, if short, a
               space and the value of :e
    :x         channel: ids of cancelled requests; ``?`` ``+`` ``-``: requests lost, queue made,
               removed
"""

from typing import NamedTuple

from queueing.redis.commands import bulk, slot_of
from queueing.redis.scripts import script

_PARTS = (b":e", b":w", b":r", b":d", b":t", b":l", b":i", b":h", b":z")

CREATED_NOTICE = b"+"
REMOVED_NOTICE = b"-"


class QueueKeys(NamedTuple):
    """The names of one version's queue."""

    version_id: str
    key: bytes
    slot: int

    @classmethod
    def of(cls, region: str, version_id: str) -> "QueueKeys":
        """Return the names of the queue of ``version_id`` in ``region``."""
        key = b"rq:{%b.%b}" % (region.encode(), version_id.encode())
        return cls(version_id, key, slot_of(key))

    @property
    def cancel_channel(self) -> bytes:
        return self.key + b":x"

    def worker_channel(self, worker: bytes) -> bytes:
        """Return the channel of one worker."""
        return b"%b:c:%b" % (self.key, worker)

    def call(self, name: str, arguments: int) -> bytes:
        """Return the beginning of a call of a script with so many ``arguments``, which follow.

        All keys are named: while a slot moves, a call is then refused instead of missing some.
        """
        keys = (self.key, *(self.key + part for part in _PARTS))
        words = (b"EVALSHA", script(name).digest, b"%d" % len(keys), *keys)
        return b"*%d\r\n" % (len(words) + arguments) + b"".join(map(bulk, words))


def version_of(key: bytes, region: str) -> str | None:
    """Return the version whose queue's hash has this key, `None` for another key."""
    prefix = b"rq:{%b." % region.encode()
    if not key.startswith(prefix) or not key.endswith(b"}"):
        return None
    return key[len(prefix) : -1].decode()
