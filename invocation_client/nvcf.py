"""NVCF's headers of invocations: the request id, the status, and how long a call may wait. Pure."""

import httpx


def request_id(response: httpx.Response) -> str | None:
    """Return the id of the request, header ``nvcf-reqid``; None if the response has none."""
    found: str | None = response.headers.get("nvcf-reqid")
    return found


def status(response: httpx.Response) -> str | None:
    """Return the header ``nvcf-status``: ``fulfilled``, ``in-progress`` or ``errored``, or None."""
    found: str | None = response.headers.get("nvcf-status")
    return found


def poll_seconds(seconds: int) -> dict[str, str]:
    """Return the request header ``nvcf-poll-seconds``: how long to wait for the response head.

    ``seconds`` are whole seconds. Raises `ValueError` if they are negative.
    """
    if seconds < 0:
        raise ValueError(f"poll seconds cannot be negative: {seconds}")
    return {"nvcf-poll-seconds": str(seconds)}
