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
from tests.chaos.payloads import CALL, event, payload, receipt, target

KEYS_PER_S = 6.0
WINDOW_S = 10
GIVE_UP_S = 45.0
LEAVING, OTHER = 0.15, 0.12
"""Shares of attempts whose client leaves after a moment, and that send the other request."""
SPREAD_S = 1.5
"""Mean time between two attempts with one key."""
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """A request of one variant of a key."""

    key: int
    variant: int
    behaviour: str
    parameters: Mapping[str, int]
    body_bytes: int

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
        calls = [planned_call(random, key, variant) for variant in (0, 1)]
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


def planned_call(random: Random, key: int, variant: int) -> KeyedCall:
    """Return the request of a variant."""
    behaviour = random.choice(("small", "small", "slow", "stream", "download"))
    parameters: dict[str, int] = {}
    if behaviour == "stream":
        parameters = {"events": random.randrange(2, 30), "ms": random.choice((0, 10, 40))}
    elif behaviour == "download":
        parameters = {"bytes": random.randrange(1, 300) << 10}
    elif behaviour == "slow":
        parameters = {"ms": random.randrange(200, 1200)}
    else:
        parameters = {"ms": random.choice((0, 0, 20, 100))}
    size = random.choice((0, 100, 5_000, 40_000, 150_000)) + random.randrange(100)
    return KeyedCall(key, variant, behaviour, parameters, size)


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
        key = f"{self._prefix}-{call.key}"
        headers = {
            **self._headers,
            # Both forms are the same key.
            "idempotency-key": f'"{key}"' if call.key % 2 else key,
            "nvcf-poll-seconds": str(WINDOW_S),
            CALL: str(call.number),
        }
        started_at = time.monotonic()
        response: httpx.Response | None = None
        wait_s = GIVE_UP_S if planned.leaves_s is None else planned.leaves_s
        try:
            async with asyncio.timeout(wait_s):
                response = await self._client.post(
                    self._urls[planned.gateway] + call.target,
                    headers=headers,
                    content=call.body,
                )
            end = Ended.WHOLE
        except TimeoutError:
            end = Ended.GAVE_UP if planned.leaves_s is None else Ended.LEFT
        except httpx.ConnectError:
            end = Ended.REFUSED
        except httpx.TransportError:
            end = Ended.CUT
        attempt = _attempt(planned, started_at, end, response, is_final=is_final)
        self.attempts.append(attempt)
        return attempt


def _attempt(
    planned: PlannedAttempt,
    started_at: float,
    end: Ended,
    response: httpx.Response | None,
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
    )
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
        "idempotent-replayed" in response.headers,
        is_final,
    )
