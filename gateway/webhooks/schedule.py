"""When a webhook that was not delivered is tried again. Pure.

The delays grow from seconds to hours, as Standard Webhooks recommends, and end after a day.
"""

from email.utils import parsedate_to_datetime

DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0)
"""Delay after the first failed attempt, the second, and so on; the last one repeats."""
JITTER = 0.2
"""The largest part of a delay by which it is longer or shorter."""
GIVE_UP_S = 86_400.0
"""No attempt begins later than this after the call's end."""
_MAX_DIGITS = 9


def next_delay_s(
    attempts: int, age_s: float, retry_after_s: float | None, random: float
) -> float | None:
    """Return the delay before the next attempt, `None` to give up.

    ``attempts`` have failed, at least 1; ``age_s`` is the time since the call's end. The receiver
    asked not to be called for ``retry_after_s``. ``random`` is from 0.0 up to 1.0.
    """
    left_s = GIVE_UP_S - age_s
    if left_s <= 0.0:
        return None
    delay_s = DELAYS_S[min(attempts, len(DELAYS_S)) - 1]
    delay_s *= 1.0 + JITTER * (2.0 * random - 1.0)
    # A receiver that asks for more than the rest of the day gets one more attempt, at its end.
    return min(max(delay_s, retry_after_s or 0.0), left_s)


def retry_after_s(value: str, now: float) -> float | None:
    """Return what a header Retry-After asks for (RFC 9110 §10.2.3), `None` if it is not valid.

    ``now`` is in Unix seconds.
    """
    if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    return max(at.timestamp() - now, 0.0)
