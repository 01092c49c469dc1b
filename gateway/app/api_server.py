"""The aiohttp application that serves the REST API in this process, and listens nowhere."""

from aiohttp import web

from gateway.app.api_bridge import Connect, within


class ApiServer:
    """The application, set up and torn down with the process."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None)

    async def start(self) -> Connect:
        """Return what connects to the application."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        return within(server)

    async def stop(self) -> None:
        """Finish the calls that run, for a short while."""
        await self._runner.cleanup()
