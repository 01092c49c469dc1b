"""The names of a queue, and calls of scripts on it."""

import hiredis
import pytest

from queueing.redis.commands import slot_of
from queueing.redis.keys import QueueKeys, version_of
from queueing.redis.scripts import script

KEYS = QueueKeys.of("eu-1", "5f0c")


class OnServer:
    is_cluster = False


class InCluster:
    is_cluster = True


def words(frame: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(frame)
    found: list[bytes] = reader.gets()
    return found


def test_a_call_names_the_queue_and_in_a_cluster_all_its_parts() -> None:
    alone = words(KEYS.frame(OnServer(), "nak", b"0", b"token"))
    assert alone == [b"EVALSHA", script("nak").digest, b"1", b"rq:{eu-1.5f0c}", b"0", b"token"]
    named = words(KEYS.frame(InCluster(), "nak", b"0", b"token"))
    count = int(named[2])
    keys = named[3 : 3 + count]
    assert named[3 + count :] == [b"0", b"token"]
    assert {slot_of(key) for key in keys} == {KEYS.slot}
    # Every part that a script appends to the name of the queue.
    assert {key.removeprefix(KEYS.key) for key in keys} >= {b"", b":e", b":w", b":l0", b":l15"}
    assert slot_of(KEYS.cancel_channel) == slot_of(KEYS.worker_channel(b"w")) == KEYS.slot


@pytest.mark.parametrize(
    ("key", "version_id"),
    [
        (b"rq:{eu-1.5f0c}", "5f0c"),
        (b"rq:{eu-1.5f0c}:e", None),
        (b"rq:{eu-10.5f0c}", None),
        (b"rq:{us.5f0c}", None),
        (b"bus:{gateway}", None),
    ],
)
def test_the_version_of_a_queue_is_in_its_name(key: bytes, version_id: str | None) -> None:
    assert version_of(key, "eu-1") == version_id
