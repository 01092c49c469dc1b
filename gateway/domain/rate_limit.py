"""How often a version may be invoked, as NVCF's ``rateLimit`` says it (`docs/wire.md` §10.6).

A rate is ``<calls>-<unit>`` with the units S, M, H and D; several are separated by commas, and all
of them apply. Each rate is a bucket of so many calls, full at first, that fills evenly within its
unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Self

from gateway.domain.documents import EMPTY, Document, RecordError

_SECOND_NS = 1_000_000_000
_UNITS = {
    "S": ("second", _SECOND_NS),
    "M": ("minute", 60 * _SECOND_NS),
    "H": ("hour", 3600 * _SECOND_NS),
    "D": ("day", 86_400 * _SECOND_NS),
}
MAX_PERIOD_S = 86_400
"""After so many seconds without a call, every bucket is full."""


class Rate(NamedTuple):
    """``calls`` in each ``unit``; one more call fits after ``interval_ns``."""

    calls: int
    unit: str
    interval_ns: int

    def __str__(self) -> str:
        return (
            f"{self.calls} calls per {self.unit}" if self.calls > 1 else f"1 call per {self.unit}"
        )


@lru_cache(maxsize=4096)
def parse_rates(text: str) -> tuple[Rate, ...]:
    """Return the rates of a text such as ``100-S, 5000-H``. Raises `ValueError`."""
    rates = []
    for part in text.split(","):
        calls, _, letter = part.strip().partition("-")
        if not (calls.isascii() and calls.isdigit()) or int(calls) < 1 or letter not in _UNITS:
            raise ValueError(f"{part.strip()!r} is not a rate such as 100-S")
        unit, period_ns = _UNITS[letter]
        rates.append(Rate(int(calls), unit, max(period_ns // int(calls), 1)))
    return tuple(rates)


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """The rate limits of one version.

    ``rate`` applies to each calling account, except ``exempted`` ones and those with a rate of
    their own in ``per_account``; ``per_user`` applies to each caller in addition. Rates are texts
    as in `parse_rates`, empty for none. ``is_exact``: each call is counted with all gateway
    processes before it is accepted (``syncCheck``).
    """

    rate: str = ""
    exempted: frozenset[str] = EMPTY
    per_account: tuple[tuple[str, str], ...] = ()
    per_user: str = ""
    is_exact: bool = False

    def rate_of(self, account: str) -> str:
        """Return the rates of all calls of ``account``, empty for none."""
        for name, rate in self.per_account:
            if name == account:
                return rate
        return "" if account in self.exempted else self.rate

    def document(self) -> dict[str, object]:
        return {
            "rate": self.rate,
            "exempted": sorted(self.exempted),
            "per_account": dict(self.per_account),
            "per_user": self.per_user,
            "is_exact": self.is_exact,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        policy = cls(
            rate=document.text("rate"),
            exempted=document.texts("exempted"),
            per_account=tuple(
                (name, _text(rate)) for name, rate in document.mapping("per_account").items()
            ),
            per_user=document.text("per_user"),
            is_exact=document.flag("is_exact"),
        )
        for rate in (policy.rate, policy.per_user, *(rate for _, rate in policy.per_account)):
            if rate:
                _check(rate)
        return policy


def policy_of(spec: Mapping[str, object]) -> RateLimitPolicy | None:
    """Return the policy that a version's validated spec, in the form of the API, asks for."""
    limit = spec.get("rateLimit")
    if not isinstance(limit, Mapping):
        return None
    members: Mapping[str, Any] = limit
    return RateLimitPolicy(
        rate=members.get("rateLimit") or "",
        exempted=frozenset(members.get("exemptedNcaIds") or ()) or EMPTY,
        per_account=tuple((members.get("perNcaIdRate") or {}).items()),
        per_user=members.get("perUserRate") or "",
        is_exact=members.get("syncCheck") is True,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise RecordError("per_account has a rate that is not a text")
    return value


def _check(rate: str) -> None:
    try:
        parse_rates(rate)
    except ValueError as error:
        raise RecordError(str(error)) from error
