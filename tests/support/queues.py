"""Subjects of a version's queue."""

from wire.subjects import queue_subjects


def request_subject(region: str, version_id: str, request_id: str) -> str:
    """Return the subject on which one request is published."""
    return queue_subjects(region, version_id).removesuffix(">") + request_id
