"""Makes one attempt to deliver a webhook, over a connection to an address that may be reached.

The addresses of a name are checked when they are resolved, and each one again when a socket for it
is made, with nothing resolved in between: a name cannot mean another address the second time.
Neither redirects nor proxies are followed, nothing is kept from one attempt to the next, and of a
response only its head and a little of its body is read.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway.webhooks.addresses import WebhookRules
from gateway.webhooks.schedule import retry_after_s
from runtime.version import program_version

TIMEOUT_S = 15.0
"""The longest time of one attempt."""
_READ_BYTES = 4096
_READ_S = 1.0
"""What is read of a response's body, and for how long: so that its sender sees no reset."""

MAX_LOOKUPS = 64
"""Names that are resolved at the same time; a further one waits for the end of one of them."""


class WebhookAttempt(NamedTuple):
    """What became of one attempt.

    ``status`` is the response's, 0 without one; ``error`` says in one word why there is none.
    ``retry_after_s`` is what the response asks for.
    """

    status: int
    error: str = ""
    retry_after_s: float | None = None


class _AddressRefused(OSError):
    """A webhook may not go to the address."""


class WebhookSender:
    """Sends webhooks within ``rules``."""

    def __init__(self, rules: WebhookRules, resolver: AbstractResolver | None = None) -> None:
        """``resolver`` finds the addresses of names; by default the system's does."""
        self.rules = rules
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> WebhookAttempt:
        """Send one webhook; ``now`` is Unix time in seconds. No receiver makes it raise."""
        if self._session is None:
            self._session = self._open()
        try:
            async with self._session.post(
                # As its caller has written it, and as it was checked.
                URL(url, encoded=True),
                data=body,
                headers={"content-type": "application/json", **headers},
                allow_redirects=False,
            ) as response:
                await _read_some(response)
                asked = response.headers.get("retry-after")
                wait_s = None if asked is None else retry_after_s(asked, now)
                return WebhookAttempt(response.status, retry_after_s=wait_s)
        except TimeoutError:
            return WebhookAttempt(0, "timeout")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return WebhookAttempt(0, _word_of(error))

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        resolver = self._resolver or _SystemResolver()
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_CheckedResolver(resolver, self.rules),
                socket_factory=self._make_socket,
                use_dns_cache=False,
                force_close=True,
                limit=0,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"user-agent": f"invocation-gateway/{program_version()}"},
            skip_auto_headers=["accept-encoding"],
            auto_decompress=False,
            trust_env=False,
        )

    def _make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address of `socket.getaddrinfo`, if it may be reached."""
        family, kind, protocol, _, target = address
        if not self.rules.permits(target[0]):
            raise _AddressRefused(f"{target[0]} may not be reached")
        return socket.socket(family, kind, protocol)


class _SystemResolver(AbstractResolver):
    """Asks the system, in a thread for each name.

    Whoever may invoke a function chooses the names, and their name servers may take a minute: in
    the few threads of the event loop they would hold up all that the process looks up. The threads
    do not hold up its end either.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        found: Future[list[ResolveResult]] = Future()
        # The thread goes on, also if nobody waits for it any more.
        found.set_running_or_notify_cancel()

        def ended(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._free.release)

        found.add_done_callback(ended)
        look_up = Thread(
            target=_look_up, args=(found, host, port, family), name="webhook-name", daemon=True
        )
        try:
            look_up.start()
        except RuntimeError as error:
            found.set_exception(OSError(str(error)))
        return await asyncio.wrap_future(found)

    async def close(self) -> None:
        """Nothing is open."""


def _address_of(target: tuple[Any, ...]) -> str:
    """Return the address in one of `socket.getaddrinfo`'s; a link-local one with its scope."""
    host, scope = target[0], target[3] if len(target) > 3 else 0
    return f"{host}%{scope}" if scope else str(host)


def _look_up(
    found: "Future[list[ResolveResult]]", host: str, port: int, family: socket.AddressFamily
) -> None:
    try:
        results = [
            ResolveResult(
                hostname=host,
                host=_address_of(target),
                port=port,
                family=of_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of_family, _, protocol, _, target in socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        ]
    except (OSError, UnicodeError) as error:
        found.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
    else:
        found.set_result(results)


class _CheckedResolver(AbstractResolver):
    """Leaves out the addresses that may not be reached."""

    def __init__(self, resolver: AbstractResolver, rules: WebhookRules) -> None:
        self._resolver = resolver
        self._rules = rules

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        permitted = [one for one in found if self._rules.permits(one["host"])]
        if found and not permitted:
            raise _AddressRefused(f"{host} has no address that may be reached")
        return permitted

    async def close(self) -> None:
        await self._resolver.close()


async def _read_some(response: aiohttp.ClientResponse) -> None:
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_READ_S):
            await response.content.read(_READ_BYTES)


def _word_of(error: Exception) -> str:
    """Return the kind of a failure, as the view of a webhook and the log show it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _AddressRefused):
            return "address_refused"
        cause = getattr(cause, "os_error", None) or cause.__cause__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name_unknown"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "unreachable"
    return "broken"
