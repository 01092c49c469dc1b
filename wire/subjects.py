"""Names in NATS: streams, consumers and subjects (`docs/wire.md` §4.1).

A region is one NATS token (no dot, blank or wildcard) that is also valid in a stream name. The
subjects below ``nvcf.`` other than ``nvcf.cancel`` carry messages between gateway processes.
"""

import re
from hashlib import sha256

_is_token = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_MAX_DIGITS = 9

UNDEPLOYED_PREFIX = b"nvcf.ended."
"""Prefix of a version id: the version was undeployed and its queue ends."""
WAKE_PREFIX = b"nvcf.wanted."
"""Prefix of a version id: the version was invoked while none of its instances runs."""

LOSS_NOTICE = b"?"
"""In place of a request id on the cancel subject: the queue has lost its requests. Workers tell the
gateways what they run; NVCF's ignore it, as they do an id that they do not run."""

WAITING_PREFIX = b"+"
"""In place of a request id on the cancel subject, before a region and a number: so many requests
wait there, and a worker of another region may serve them. NVCF's workers ignore it likewise."""


def stream_name(region: str, version_id: str) -> str:
    """Return the name of the queue's stream of one version in one region."""
    return f"rq_{region}_{version_id}"


def consumer_name(stream: str) -> str:
    """Return the name of the durable consumer that all workers of a stream share."""
    return f"{stream}_workers"


def queue_subjects(region: str, version_id: str) -> str:
    """Return the wildcard subject of a queue's stream."""
    return f"rq.{region}.{version_id}.>"


def cancel_subject(version_id: str) -> str:
    """Return the subject on which every worker of a version gets the ids of cancelled requests."""
    return f"nvcf.cancel.{version_id}"


def position_subject(version_id: str) -> str:
    """Return the subject on which gateway processes count their requests in a queue."""
    return f"nvcf.position.{version_id}"


def presence_subject(region: str) -> str:
    """Return the subject on which the gateway processes of a region announce themselves."""
    return f"nvcf.presence.{region}"


def locate_subject(region: str, process: int) -> str:
    """Return the subject on which one gateway process is asked for a request that it published."""
    return f"nvcf.request.{region}.{process:04x}"


def holder_subject(region: str, process: int) -> str:
    """Return the subject on which a gateway process is asked where it can be reached."""
    return f"nvcf.holder.{region}.{process:04x}"


def direct_subject(region: str) -> str:
    """Return the subject on which gateway processes tell how many calls channels carry."""
    return f"nvcf.direct.{region}"


def region_subject(region: str) -> str:
    """Return the subject on which the gateway processes of a region say that they are there."""
    return f"nvcf.region.{region}"


def waiting_notice(region: str, waiting: int) -> bytes:
    """Return what tells the workers of other regions that requests wait."""
    return b"%b%b %d" % (WAITING_PREFIX, region.encode(), waiting)


def read_waiting_notice(payload: bytes) -> tuple[str, int] | None:
    """Return region and number of a notice; `None` for any other payload of the cancel subject."""
    if not payload.startswith(WAITING_PREFIX):
        return None
    region, _, number = payload[len(WAITING_PREFIX) :].decode("ascii", "replace").partition(" ")
    is_valid = _is_token(region) and number.isdecimal() and len(number) <= _MAX_DIGITS
    return (region, int(number)) if is_valid else None


def polling_subject(request_id: str) -> str:
    """Return the subject on which the worker of a request gets further polls for its response."""
    return f"rq_polling.{request_id}"


def scoped_polling_subject(version_id: str, request_id: str) -> str:
    """Return the same for workers whose account may see their own version's requests only."""
    return f"nvcf.polling.{version_id}.{request_id}"


def polled_subject(version_id: str, token: str) -> str:
    """Return the subject on which those workers acknowledge polls; ``token`` may have dots."""
    return f"nvcf.polled.{version_id}.{token}"


def worker_inbox(version_id: str, instance_id: str) -> str:
    """Return the prefix of one worker's reply subjects; ``instance_id`` is any text."""
    token = (
        instance_id if _is_token(instance_id) else f"={sha256(instance_id.encode()).hexdigest()}"
    )
    return f"_INBOX.{version_id}.{token}"
