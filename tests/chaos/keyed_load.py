"""Clients that repeat calls with an Idempotency-Key, planned from a seed."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from random import Random

import httpx

from tests.chaos.keyed_history import Attempt, Ended, number_of
from tests.chaos.payloads import CALL, TARGET, event, payload, receipt, target

KEYS_PER_S = 6.0
WINDOW_S = 10
GIVE_UP_S = 45.0
POLLED_WINDOW_S = 1
POLLED_GIVE_UP_S = 120.0
CALM_KEYS = 2
"""Keys that are sent once nothing is killed any more, so that a short run has polled responses."""
"""A call over the polling routes has no window that ends it."""
PEXEC = "/v2/nvcf/pexec"
POLLED = 0.4
"""Share of keys whose calls go over the polling routes."""
LEAVING, OTHER = 0.15, 0.12
"""Shares of attempts whose client leaves after a moment, and that send the other request."""
SPREAD_S = 1.5
"""Mean time between two attempts with one key."""
MAX_ATTEMPTS = 5
ACCEPTED = 202


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """A request of one variant of a key."""

    key: int
    variant: int
    behaviour: str
    parameters: Mapping[str, int]
    body_bytes: int
    is_polled: bool = False

    @property
    def number(self) -> int:
        return number_of(self.key, self.variant)

    @property
    def target(self) -> str:
        return target(self.number, self.behaviour, self.parameters)

    @property
    def body(self) -> bytes:
        return payload(self.number, self.body_bytes)

    @property
    def response(self) -> bytes:
        """The body of the right response."""
        if self.behaviour == "stream":
            return b"".join(event(self.number, i) for i in range(self.parameters["events"]))
        if self.behaviour == "download":
            return payload(self.number, self.parameters["bytes"])
        return receipt(self.number, self.body)


@dataclass(frozen=True, slots=True)
class PlannedAttempt:
    """``after_s`` from the start of the load, left by its client after ``leaves_s``, if at all."""

    after_s: float
    call: KeyedCall
    gateway: str
    leaves_s: float | None = None


def keyed_attempts(
    seed: int, gateways: tuple[str, ...], duration_s: float
) -> Iterator[PlannedAttempt]:
    """Yield the attempts of a seed in the order of keys."""
    random = Random(f"keyed load {seed}")
    after_s, key = 0.0, 0
    while after_s < duration_s:
        key += 1
        is_polled = random.random() < POLLED
        calls = [planned_call(random, key, variant, is_polled=is_polled) for variant in (0, 1)]
        at_s = after_s
        for _ in range(random.randint(1, MAX_ATTEMPTS)):
            yield PlannedAttempt(
                at_s,
                calls[random.random() < OTHER],
                random.choice(gateways),
                random.expovariate(4) if random.random() < LEAVING else None,
            )
            # Some at once, at several processes: they meet while the first has just claimed it.
            at_s += random.choice((0.0, 0.002, random.expovariate(1 / SPREAD_S)))
        after_s += random.expovariate(KEYS_PER_S)


def calm_attempts(first_key: int, gateways: tuple[str, ...]) -> Iterator[PlannedAttempt]:
    """Yield attempts of keys of their own that outlast a poll window, each over every gateway."""
    for key in range(first_key, first_key + CALM_KEYS):
        call = KeyedCall(key, 0, "polled", {"ms": 1500 * POLLED_WINDOW_S}, 100, is_polled=True)
        yield from (PlannedAttempt(0.0, call, gateway) for gateway in gateways)


def planned_call(random: Random, key: int, variant: int, *, is_polled: bool) -> KeyedCall:
    """Return the request of a variant."""
    behaviours = ("small", "small", "slow", "stream", "download")
    behaviour = random.choice((*behaviours, "polled", "polled") if is_polled else behaviours)
    parameters: dict[str, int] = {}
    if behaviour == "stream":
        parameters = {"events": random.randrange(2, 30), "ms": random.choice((0, 10, 40))}
    elif behaviour == "download":
        parameters = {"bytes": random.randrange(1, 300) << 10}
    elif behaviour == "polled":
        parameters = {"ms": random.randrange(0, 3500)}
    elif behaviour == "slow":
        parameters = {"ms": random.randrange(200, 1200)}
    else:
        parameters = {"ms": random.choice((0, 0, 20, 100))}
    size = random.choice((0, 100, 5_000, 40_000, 150_000)) + random.randrange(100)
    return KeyedCall(key, variant, behaviour, parameters, size, is_polled)


class KeyedClients:
    """Makes attempts, and remembers how they ended."""

    def __init__(self, urls: Mapping[str, str], headers: Mapping[str, str], prefix: str) -> None:
        """``prefix`` begins the keys: those of an earlier run are others."""
        self.attempts: list[Attempt] = []
        self._urls = urls
        self._headers = headers
        self._prefix = prefix
        # No connection is kept: a call on one that a killed gateway had would fail for that alone.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=None, limits=limits)

    async def close(self) -> None:
        await self._client.aclose()

    async def attempt(self, planned: PlannedAttempt, *, is_final: bool = False) -> Attempt:
        """Send one request and wait for its end."""
        call = planned.call
        started_at = time.monotonic()
        exchanges = _Exchanges()
        wait_s = planned.leaves_s
        if wait_s is None:
            wait_s = POLLED_GIVE_UP_S if call.is_polled else GIVE_UP_S
        try:
            async with asyncio.timeout(wait_s):
                await self._send(planned, exchanges)
            end = Ended.WHOLE
        except TimeoutError:
            end = Ended.GAVE_UP if planned.leaves_s is None else Ended.LEFT
        except httpx.ConnectError:
            end = Ended.REFUSED
        except httpx.TransportError:
            end = Ended.CUT
        attempt = _attempt(planned, started_at, end, exchanges, is_final=is_final)
        self.attempts.append(attempt)
        return attempt

    async def _send(self, planned: PlannedAttempt, exchanges: "_Exchanges") -> None:
        """Send one request, and poll for as long as the response is 202."""
        call, url = planned.call, self._urls[planned.gateway]
        key = f"{self._prefix}-{call.key}"
        headers = {
            **self._headers,
            # Both forms are the same key.
            "idempotency-key": f'"{key}"' if call.key % 2 else key,
            "nvcf-poll-seconds": str(POLLED_WINDOW_S if call.is_polled else WINDOW_S),
            CALL: str(call.number),
        }
        target = call.target
        if call.is_polled:
            # The path names the function, and the inference server gets another one.
            headers[TARGET] = target
            target = f"{PEXEC}/functions/{headers.pop('function-id')}"
        response = await self._client.post(url + target, headers=headers, content=call.body)
        exchanges.is_replayed = "idempotent-replayed" in response.headers
        while call.is_polled and response.status_code == ACCEPTED:
            exchanges.polls += 1
            status = f"{url}{PEXEC}/status/{response.headers['nvcf-reqid']}"
            named = {name: headers[name] for name in ("authorization", "nvcf-poll-seconds")}
            response = await self._client.get(status, headers=named)
        exchanges.response = response


@dataclass
class _Exchanges:
    """What came of one request and its polls; ``response`` is the last one, if it is complete."""

    response: httpx.Response | None = None
    is_replayed: bool = False
    polls: int = 0


def _attempt(
    planned: PlannedAttempt,
    started_at: float,
    end: Ended,
    exchanges: _Exchanges,
    *,
    is_final: bool,
) -> Attempt:
    call = planned.call
    plain = Attempt(
        call.key,
        call.variant,
        planned.gateway,
        started_at,
        time.monotonic(),
        end,
        is_final=is_final,
        polls=exchanges.polls,
    )
    response = exchanges.response
    if response is None:
        return plain
    is_served = CALL in response.headers
    missing = ""
    if is_served and (
        response.content != call.response or response.headers[CALL] != str(call.number)
    ):
        missing = f"of {len(response.content)} bytes is not that of request {call.number}"
    reason = ""
    with suppress(ValueError):
        if not is_served:
            reason = str(json.loads(response.content).get("reason", ""))
    return Attempt(
        call.key,
        call.variant,
        planned.gateway,
        started_at,
        plain.ended_at,
        end,
        response.status_code,
        reason,
        sha256(response.content).hexdigest()[:16],
        response.headers.get("nvcf-reqid", ""),
        missing,
        is_served,
        exchanges.is_replayed,
        is_final,
        exchanges.polls,
    )
