"""Keeps the platform told of this agent, and the agent provided with a login to NATS.

    POST /v2/nvcf/worker/connect     who we are ──▶ region, NATS login, a fresh token, the lease
    POST /v2/nvcf/worker/heartbeat   how we are ──▶ the lease

Both answers say how many requests the deployment asks of us at a time, now; one that does not
leaves it as it was. A heartbeat goes out three times a lease, and at once when health, slots or
stopping change. Token
and login are renewed at half of their time, so the API may be away for the other half: nothing
that is served depends on it. A token that is refused once we have connected is no reason to stop
either; whoever no longer wants us has us stopped.
"""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

import aiohttp

from runtime.tasks import spawn

CONNECT_PATH = "/v2/nvcf/worker/connect"
HEARTBEAT_PATH = "/v2/nvcf/worker/heartbeat"
BEATS_PER_LEASE = 3
GOODBYE_S = 2.0
MAX_CONCURRENCY = 16_384
"""As the API and our own settings have it (`spec/control-plane.md` §1.5)."""
_RETRY_MIN_S = 0.25
_RETRY_MAX_S = 5.0
_MAX_ANSWER_BYTES = 65_536
_DEFINITE = frozenset({400, 401, 403})
"""Statuses that another attempt with the same token does not change."""

_log = logging.getLogger("worker.connect")


class ConnectError(Exception):
    """The API cannot be reached or did not do what was asked; ``status`` 0: no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Place(NamedTuple):
    """Which instance of what we are."""

    instance_id: str
    function_id: str
    version_id: str


class Status(NamedTuple):
    """How the agent is. ``busy`` is at least 1 when a request ran since the last status."""

    healthy: bool
    slots: int
    busy: int
    stopping: bool


class NatsLogin(NamedTuple):
    """Where NATS is and how to log in; ``api`` is where JetStream answers us."""

    urls: tuple[str, ...]
    jwt: str
    seed: str
    api: str

    def __repr__(self) -> str:
        return f"NatsLogin({self.urls})"


class Welcome(NamedTuple):
    """The API's answer to connect.

    ``nats`` is missing when logins are not its business, ``concurrency`` (requests at a time) when
    it does not know.
    """

    region: str
    nats: NatsLogin | None
    token: str
    expires_s: float
    lease_s: float
    concurrency: int | None = None

    def __repr__(self) -> str:
        return f"Welcome({self.region}, {self.nats})"


class Api(Protocol):
    """How the API is called."""

    async def post(self, path: str, token: str, document: object) -> Mapping[str, object]:
        """Return the answer to ``document``. Raises `ConnectError`."""


class HttpApi:
    """The API at ``url``, http or https. To be closed."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s))

    async def post(self, path: str, token: str, document: object) -> Mapping[str, object]:
        """Return the answer to ``document``. Raises `ConnectError`."""
        headers = {"authorization": f"Bearer {token}"}
        try:
            async with self._session.post(
                self._url + path, json=document, headers=headers, allow_redirects=False
            ) as response:
                body = await response.content.read(_MAX_ANSWER_BYTES)
                while len(body) < _MAX_ANSWER_BYTES and (more := await response.content.readany()):
                    body += more
                status = response.status
        except TimeoutError as error:
            raise ConnectError("no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectError(str(error) or type(error).__name__) from error
        if status != 200:
            raise ConnectError(f"status {status}: {_detail(body)}", status)
        answer = _parsed(body)
        if answer is None:
            raise ConnectError("the answer is no JSON object")
        return answer

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()


class Registration:
    """This agent at the API: `connect` once, then `start`, `stop` at the end."""

    def __init__(
        self,
        api: Api,
        place: Place,
        token: str,
        status: Callable[[], Status],
        renewed: Callable[[], Awaitable[object]],
        asked: Callable[[int], object],
    ) -> None:
        """``status`` is asked for each heartbeat; ``renewed`` is called after the login changed.

        ``asked`` gets the requests at a time that are asked of us, with every answer that has them.
        """
        self._api = api
        self._place = place
        self._token = token
        self._status = status
        self._renewed = renewed
        self._asked = asked
        self._changed = asyncio.Event()
        self._welcome: Welcome | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_heard = True
        self.is_renewal_failing = False
        """Whether the latest attempt to renew token and login failed."""

    @property
    def welcome(self) -> Welcome:
        """The latest answer to connect. There must have been one."""
        if self._welcome is None:
            raise AssertionError("not connected yet")
        return self._welcome

    def credentials(self) -> tuple[str, str]:
        """Return JWT and seed as they are now, for each login to NATS."""
        nats = self.welcome.nats
        return (nats.jwt, nats.seed) if nats is not None else ("", "")

    async def connect(self) -> Welcome:
        """Connect, however often that takes.

        Raises `ConnectError` for an answer that no further attempt can change.
        """
        delay_s = _RETRY_MIN_S
        while True:
            try:
                return await self._connect()
            except ConnectError as error:
                if error.status in _DEFINITE:
                    raise
                _log.warning("control.away", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(_spread(delay_s))
            delay_s = min(2 * delay_s, _RETRY_MAX_S)

    def start(self) -> None:
        """Begin to tell how we are, and to renew what expires."""
        self._tasks = [
            spawn(self._tell(), "worker.heartbeats"),
            spawn(self._renew(), "worker.renewal"),
        ]

    def changed(self) -> None:
        """Health, slots or stopping have changed: tell at once."""
        self._changed.set()

    async def stop(self) -> None:
        """Say a last time how we are, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(ConnectError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._beat()

    async def _connect(self) -> Welcome:
        place = self._place
        answer = await self._api.post(
            CONNECT_PATH,
            self._token,
            {
                "instanceId": place.instance_id,
                "functionId": place.function_id,
                "functionVersionId": place.version_id,
            },
        )
        welcome = self._welcome = read_welcome(answer)
        self._token = welcome.token
        self._take(welcome.concurrency)
        return welcome

    async def _tell(self) -> None:
        delay_s = _RETRY_MIN_S
        while True:
            self._changed.clear()
            regular_s = self.welcome.lease_s / BEATS_PER_LEASE
            try:
                await self._beat()
            except ConnectError as error:
                self._missed(error)
                wait_s = _spread(min(delay_s, regular_s))
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            else:
                self._heard()
                wait_s, delay_s = regular_s, _RETRY_MIN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _beat(self) -> None:
        document = {"instanceId": self._place.instance_id, **self._status()._asdict()}
        answer = await self._api.post(HEARTBEAT_PATH, self._token, document)
        self._take(read_concurrency(answer))

    def _take(self, concurrency: int | None) -> None:
        if concurrency is not None:
            self._asked(concurrency)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_spread(self.welcome.expires_s / 2))
            delay_s = _RETRY_MIN_S
            while True:
                try:
                    await self._connect()
                    break
                except ConnectError as error:
                    self.is_renewal_failing = True
                    _log.warning("control.not_renewed", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(_spread(delay_s))
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            self.is_renewal_failing = False
            await self._renewed()

    def _missed(self, error: ConnectError) -> None:
        """Say once that nobody hears us, not at every attempt."""
        if self._is_heard:
            _log.warning("control.away", extra={"fields": {"error": str(error)}})
        self._is_heard = False

    def _heard(self) -> None:
        if not self._is_heard:
            _log.info("control.back")
        self._is_heard = True


def read_welcome(answer: Mapping[str, object]) -> Welcome:
    """Return the answer to connect. Raises `ConnectError` for one that cannot be used."""
    nats = answer.get("nats")
    try:
        return Welcome(
            region=_text(answer, "region"),
            nats=_login(nats) if isinstance(nats, dict) else None,
            token=_text(answer, "token"),
            expires_s=_positive(answer, "expiresInSeconds"),
            lease_s=_positive(answer, "leaseSeconds"),
            concurrency=read_concurrency(answer),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConnectError(f"the answer lacks a usable {error}") from error


def read_concurrency(answer: Mapping[str, object]) -> int | None:
    """Return the requests at a time that an answer asks for, `None` unless it does, usably."""
    value = answer.get("maxRequestConcurrency")
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CONCURRENCY:
        return None
    return value


def _login(nats: Mapping[str, object]) -> NatsLogin:
    urls = nats["urls"]
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise TypeError("nats.urls")
    return NatsLogin(tuple(urls), _text(nats, "jwt"), _text(nats, "seed"), _text(nats, "apiPrefix"))


def _text(members: Mapping[str, object], name: str) -> str:
    value = members[name]
    if not isinstance(value, str) or not value:
        raise TypeError(name)
    return value


def _positive(members: Mapping[str, object], name: str) -> float:
    value = members[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise TypeError(name)
    return float(value)


def _parsed(body: bytes) -> Mapping[str, object] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _detail(body: bytes) -> str:
    """Return what a problem document says, or nothing."""
    detail = (_parsed(body) or {}).get("detail")
    return detail[:200] if isinstance(detail, str) else "no detail"


def _spread(delay_s: float) -> float:
    return delay_s * random.uniform(0.8, 1.0)  # noqa: S311 - spreads agents, guards nothing
