"""A webhook as the store keeps it, and what its receiver gets. Pure.

One document for each call that named a URL, under the id of its request in the bucket `BUCKET`.
When the webhook has ended, the document stays for a while without its body, for those who ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import orjson

from gateway.domain.documents import SCHEMA, RecordError, read

BUCKET = "webhooks"
"""Bucket of the store (`gateway.store.names`)."""
MAX_BODY_BYTES = 20_000
"""The most bytes of a body: Standard Webhooks recommends less than 20 kB."""
PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
KINDS = frozenset({"done", "failed", "cancelled"})
"""How a call ended: the end of its event's ``type``."""
_KIND = "webhook"


class Documents(Protocol):
    """Documents of the store (`gateway.store.records.Store`).

    Every call may raise `gateway.errors.StoreUnavailable`; writes raise `gateway.errors.Conflict`
    if the stored revision is another.
    """

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int: ...

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None: ...

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """One webhook. Times are Unix seconds.

    ``body`` is what is sent, empty once it has ended. ``attempts`` counts those that were begun.
    ``next_at`` is when the next one is due, while ``state`` is `PENDING`. ``holder`` is the process
    that makes an attempt now, empty if none does. ``status`` is that of the last response, 0 if
    there was none, and ``error`` says why.
    """

    account: str
    url: str
    body: str
    created_at: float
    next_at: float
    state: str = PENDING
    attempts: int = 0
    holder: str = ""
    status: int = 0
    error: str = ""
    ended_at: float = 0.0

    def encode(self) -> bytes:
        """Return the document."""
        return orjson.dumps(
            {
                "schema": SCHEMA,
                "kind": _KIND,
                "account": self.account,
                "url": self.url,
                "body": self.body,
                "created_at": int(self.created_at * 1000),
                "next_at": int(self.next_at * 1000),
                "state": self.state,
                "attempts": self.attempts,
                "holder": self.holder,
                "status": self.status,
                "error": self.error,
                "ended_at": int(self.ended_at * 1000),
            }
        )

    def ended(self, state: str, now: float) -> "WebhookDelivery":
        """Return the document of a webhook that has ended."""
        return replace(self, state=state, body="", holder="", ended_at=now)

    def view(self) -> dict[str, object]:
        """Return what is shown of it with its request."""
        shown: dict[str, object] = {"state": self.state, "attempts": self.attempts}
        if self.status:
            shown["lastStatus"] = self.status
        if self.error:
            shown["lastError"] = self.error
        if self.state == PENDING:
            shown["nextAttemptAt"] = _time(self.next_at)
        return shown


def decode(data: bytes) -> WebhookDelivery:
    """Return the webhook in a document. Raises `RecordError`."""
    document = read(data)
    if document.text("kind") != _KIND:
        raise RecordError("the document is of another kind")
    return WebhookDelivery(
        document.text("account"),
        document.text("url"),
        document.text("body"),
        document.number("created_at") / 1000,
        document.number("next_at") / 1000,
        document.text("state"),
        document.number("attempts"),
        document.text("holder"),
        document.number("status"),
        document.text("error"),
        document.number("ended_at") / 1000,
    )


def message_id(request_id: str) -> str:
    """Return the ``webhook-id`` of the webhook about a request: the same in all attempts."""
    return f"msg_{request_id}"


def body_of(kind: str, request_id: str, view: Mapping[str, object], now: float) -> str:
    """Return the body of a webhook about a call that has ended in one of `KINDS`.

    ``view`` is that of ``GET /v2/requests/{id}``. Its ``problem`` is left out if the body would be
    larger than `MAX_BODY_BYTES`.
    """
    if kind not in KINDS:
        raise ValueError(f"a call does not end as {kind}")
    data = {**view, "responseUrl": f"/v2/requests/{request_id}/response"}
    body = orjson.dumps({"type": f"request.{kind}", "timestamp": _time(now), "data": data})
    if len(body) > MAX_BODY_BYTES:
        data.pop("problem", None)
        body = orjson.dumps({"type": f"request.{kind}", "timestamp": _time(now), "data": data})
    return body.decode()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
