"""`/health`, `/health/live`, `/health/ready`."""

import os
from collections.abc import Callable

from http1.stream import Headers
from wire.headers import CONTENT_TYPE
from wire.ids import uuid4_text
from wire.problem import problem_response

Check = Callable[[], str]
"""Returns why the process cannot serve, or an empty string."""


class Health:
    """The process is live while it answers, ready while no check gives a reason."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def add(self, check: Check) -> None:
        """Ask ``check`` at every readiness call; it must be cheap."""
        self._checks.append(check)

    def reasons(self) -> list[str]:
        """Return why the process is not ready; empty when it is."""
        return [reason for check in self._checks if (reason := check())]

    def answer(self, path: bytes) -> tuple[int, Headers, bytes] | None:
        """Return status, headers and body for a health path, None for any other path."""
        if path == b"/health/live":
            return 200, [_JSON], _OK
        if path not in (b"/health", b"/health/ready"):
            return None
        reasons = self.reasons()
        if not reasons:
            return 200, [_JSON], _OK
        status = 500 if path == b"/health" else 503
        headers, body = problem_response(
            status,
            "not-ready",
            "; ".join(reasons),
            instance=path.decode(),
            request_id=uuid4_text(os.urandom(16)),
            reasons=reasons,
        )
        return status, headers, body


_JSON = (CONTENT_TYPE, b"application/json")
_OK = b'{"status":"OK"}'
