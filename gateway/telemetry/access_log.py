"""The access log: one line of JSON per finished invocation.

Formatted with one ``%`` operation instead of a JSON encoder, because it runs for every invocation.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime

from gateway.invocation.machine import Invocation
from gateway.telemetry.metrics import queue_wait_s
from runtime.logs import LineWriter

_LINE = (
    '{"ts":"%s.%03dZ","level":"info","logger":"gateway.access","event":"invocation.finished",'
    '"request_id":"%s",'
    '"function_id":"%s","function_version_id":"%s","nca_id":%s,"outcome":"%s","status":%d,'
    '"request_bytes":%d,"response_bytes":%d,"queue_ms":%.2f,"ttfb_ms":%.2f,"total_ms":%.2f}\n'
)
_NEVER_MS = -1.0
"""Written for a duration whose end was never reached."""
_MAX_ACCOUNTS = 10_000
"""Accounts whose encoded name is cached."""


class AccessLog:
    """Formats the lines and passes them to a buffered writer, which never blocks the loop.

    ``wall`` returns Unix time in seconds.
    """

    __slots__ = ("_accounts", "_second", "_second_text", "_wall", "_writer")

    def __init__(self, writer: LineWriter, wall: Callable[[], float]) -> None:
        self._writer = writer
        self._wall = wall
        self._second = -1
        self._second_text = ""
        self._accounts: dict[str, str] = {}

    def write(self, invocation: Invocation, now: float) -> None:
        """Write the line of a finished invocation; ``now`` is loop time."""
        wall_s = self._wall()
        second = int(wall_s)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        received_at = invocation.received_at
        version = invocation.version
        outcome = invocation.outcome
        self._writer.write(
            (
                _LINE
                % (
                    self._second_text,
                    int((wall_s - second) * 1e3),
                    invocation.request_id,
                    version.function_id,
                    version.version_id,
                    self._quote(invocation.account),
                    outcome.value if outcome is not None else "",
                    invocation.status,
                    invocation.request_bytes,
                    invocation.response_bytes,
                    queue_wait_s(invocation) * 1e3 if invocation.attached_at else _NEVER_MS,
                    (invocation.head_at - received_at) * 1e3 if invocation.head_at else _NEVER_MS,
                    (now - received_at) * 1e3,
                )
            ).encode()
        )

    def _quote(self, account: str) -> str:
        text = self._accounts.get(account)
        if text is None:
            text = json.dumps(account)
            if len(self._accounts) >= _MAX_ACCOUNTS:
                self._accounts.clear()
            self._accounts[account] = text
        return text
