"""The aiohttp application that serves the REST API in this process, and listens nowhere."""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.dispatch.api_proxy import Connect, within

_UNBOUNDED = 2**31 - 1
"""The edge has bounded the head already; a second, lower limit would refuse what it took."""

_log = logging.getLogger("gateway.api")


class ApiServer:
    """The application, set up and torn down with the process."""

    def __init__(self, app: web.Application) -> None:
        _log.addFilter(without_bytes)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_log,
            max_line_size=_UNBOUNDED,
            max_field_size=_UNBOUNDED,
            max_headers=_UNBOUNDED,
        )

    async def start(self) -> Connect:
        """Return what connects to the application."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        return within(server)

    async def stop(self) -> None:
        """Finish the calls that run, for a short while."""
        await self._runner.cleanup()


def without_bytes(record: logging.LogRecord) -> bool:
    """Keep out of the log what aiohttp could not read: its errors repeat it, credentials included.

    A `logging.Filter`; `gateway.dispatch.api_proxy` does the same for the answer.
    """
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    _log.info("api.unreadable", extra={"fields": {"error": type(error).__name__}})
    return False
