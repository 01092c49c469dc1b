"""The health endpoints `/health`, `/health/live` and `/health/ready`."""

from collections.abc import Callable

from http1.stream import Headers
from runtime.ids import new_uuid
from wire.headers import CONTENT_TYPE
from wire.problem import problem_response

Check = Callable[[], str]
"""Returns the reason why the process cannot serve; an empty string if it can."""


class ProcessHealth:
    """Live while the process responds; ready while no check returns a reason."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def add(self, check: Check) -> None:
        """Run ``check`` at every readiness request; it must be cheap and must not block."""
        self._checks.append(check)

    def reasons(self) -> list[str]:
        """Return the reasons why the process is not ready; empty if it is."""
        return [reason for check in self._checks if (reason := check())]

    def respond(self, path: bytes) -> tuple[int, Headers, bytes] | None:
        """Return status, headers and body for a health path, `None` for any other path.

        A process that is not ready gets 503, but 500 at `/health` as in NVCF.
        """
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
            request_id=new_uuid(),
            reasons=reasons,
        )
        return status, headers, body


_JSON = (CONTENT_TYPE, b"application/json")
_OK = b'{"status":"OK"}'
