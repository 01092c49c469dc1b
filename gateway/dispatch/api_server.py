"""The aiohttp server of the REST API in this process; it has no listening socket."""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.dispatch.api_proxy import connect_in_process
from http1.client.pool import Connect
from runtime.events import emit

UNBOUNDED = 2**31 - 1
"""The gateway's HTTP server has bounded the head; a lower limit would reject what it accepted."""

_log = logging.getLogger("gateway.api")


class ApiServer:
    """Runs the application while the process runs."""

    def __init__(self, app: web.Application, max_line_bytes: int = UNBOUNDED) -> None:
        """``max_line_bytes`` bounds the request line and each header field."""
        _log.addFilter(without_bytes)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_log,
            max_line_size=max_line_bytes,
            max_field_size=max_line_bytes,
            max_headers=UNBOUNDED,
        )

    async def start(self) -> Connect:
        """Start the application; return a function that connects to it."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        return connect_in_process(server)

    async def stop(self) -> None:
        """Stop; running calls get a short while to finish."""
        await self._runner.cleanup()


def without_bytes(record: logging.LogRecord) -> bool:
    """Replace aiohttp's log record of bytes that it could not parse: it repeats them.

    They may be a credential. A `logging.Filter`; `gateway.dispatch.api_proxy` does the same for the
    response.
    """
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    emit(_log, "api.unreadable", error=type(error).__name__)
    return False
