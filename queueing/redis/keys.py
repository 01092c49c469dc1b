r"""The names of one queue in Redis.

All begin with ``rq:{<region>.<versionId>}``; the part in braces decides the slot, so that all are
on one node of a cluster:

    (nothing)  hash: life ("epoch run gen lease": which queue it is, on which life of the server,
               how many of those it has seen, lease in ms), seq (highest sequence), gone (requests
               that were withdrawn while they waited), again (leases of what was given back), p-…
               (the last publish of each process: 7 digits of its connection, 9 of the publish)
    :e         hash of what is not leased: request id → "seq seconds micros gen runs\n" and the
               envelope, with the time at which it was stored
    :w         sorted set: ids that wait, by sequence
    :r :d      sorted sets: ids given back, by sequence; to be given back later, by time in ms
    :t         hash: id → "deliveries:runs" of requests that were given back
    :l0 … :l15 hashes of what is leased, each for an eighth of a lease's time: token → value as in
               :e; a token is "id:deliveries:runs:number of the hash:worker"
    :k         sorted set: ids of requests that ended while they were leased, by the time in s
    :i         list: workers that wait, one entry for each request that they want
    :h         sorted set: workers, by the time in s at which they were last heard of
    :n         hash: worker → how many calls of its were executed since it was bound
    :z         sorted set: ids whose every run has ended, by the time in ms
    :c:<name>  channel of a worker: what is leased to it, "token waiting" and, if short, a space and
               the value; waiting is how many requests wait then; ``!``: registered no more
    :p:<id>    channel: further polls for the response to a request, each an envelope
    :x         channel: ids of cancelled requests; ``?`` ``+`` ``-``: requests lost, queue made,
               removed
"""

from typing import NamedTuple, Protocol

from queueing.redis.commands import bulk, slot_of
from queueing.redis.scripts import script

_PARTS = (
    *(b":%b" % part for part in (b"e", b"w", b"r", b"d", b"t", b"k", b"i", b"h", b"n", b"z")),
    *(b":l%d" % number for number in range(16)),
)

CREATED_NOTICE = b"+"
REMOVED_NOTICE = b"-"
FORGOTTEN_NOTICE = b"!"


class HasCluster(Protocol):
    """A link, as far as it matters here."""

    is_cluster: bool


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

    def polling_channel(self, request_id: bytes) -> bytes:
        """Return the channel of the polls of one request."""
        return b"%b:p:%b" % (self.key, request_id)

    def call(self, name: str, arguments: int, *, is_cluster: bool) -> bytes:
        """Return the beginning of a call of a script with so many ``arguments``, which follow.

        In a cluster all keys are named: while a slot moves, a call is then refused instead of
        missing some. They cost a tenth of the call.
        """
        parts = _PARTS if is_cluster else ()
        keys = (self.key, *(self.key + part for part in parts))
        words = (b"EVALSHA", script(name).digest, b"%d" % len(keys), *keys)
        return b"*%d\r\n" % (len(words) + arguments) + b"".join(map(bulk, words))

    def frame(self, link: HasCluster, name: str, *words: bytes) -> bytes:
        """Return a whole call of a script on ``link``."""
        head = self.call(name, len(words), is_cluster=link.is_cluster)
        return head + b"".join(map(bulk, words))


def version_of(key: bytes, region: str) -> str | None:
    """Return the version whose queue's hash has this key, `None` for another key."""
    prefix = b"rq:{%b." % region.encode()
    if not key.startswith(prefix) or not key.endswith(b"}"):
        return None
    return key[len(prefix) : -1].decode()


class Life(NamedTuple):
    """The life of a queue; ``gen`` is a number, ``lease_ms`` the duration of leases."""

    epoch: bytes
    run: bytes
    gen: bytes
    lease_ms: int

    @classmethod
    def of(cls, life: bytes) -> "Life":
        """Read the field ``life``; all parts of an empty one are empty."""
        epoch, run, gen, lease_ms = life.split(b" ") if life else (b"", b"", b"", b"0")
        return cls(epoch, run, gen, int(lease_ms))

    @property
    def width(self) -> bytes:
        """An eighth of a lease, in seconds."""
        return b"%.6f" % (self.lease_ms / 8000)
