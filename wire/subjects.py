"""Names in the broker: streams, consumers, subjects (`spec/worker.md` §2.1).

A region is one NATS token (no dot, blank or wildcard) that may stand in a stream's name too.
"""

import re
from hashlib import sha256

_is_token = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


def stream_name(region: str, version_id: str) -> str:
    """Return the name of the queue stream of one version in one region."""
    return f"rq_{region}_{version_id}"


def consumer_name(stream: str) -> str:
    """Return the name of the durable consumer that all workers of a stream share."""
    return f"{stream}_workers"


def queue_subjects(region: str, version_id: str) -> str:
    """Return the wildcard that a queue stream listens to."""
    return f"rq.{region}.{version_id}.>"


def cancel_subject(version_id: str) -> str:
    """Return where ids of cancelled requests are published to every worker of a version."""
    return f"nvcf.cancel.{version_id}"


def position_subject(version_id: str) -> str:
    """Return where the head of a version's queue is announced."""
    return f"nvcf.position.{version_id}"


def worker_inbox(version_id: str, instance_id: str) -> str:
    """Return the prefix below which one worker alone gets replies; ``instance_id`` is any text."""
    token = (
        instance_id if _is_token(instance_id) else f"={sha256(instance_id.encode()).hexdigest()}"
    )
    return f"_INBOX.{version_id}.{token}"
