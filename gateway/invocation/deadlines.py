"""Which deadline holds when: the answer to "why did this get 504"."""

ANSWER_GRACE_S = 2.0
"""Added to the caller's poll seconds, so that a worker that answers 202 at the end of the poll
window still gets through (`spec/invocation.md` §6)."""

CEILING_S = 3605.0
"""From the request head to the last response byte (`spec/invocation.md` §6)."""


def answer_by(received_at: float, poll_s: int) -> float:
    """Return the time by which the response head must be there, else 504."""
    return received_at + poll_s + ANSWER_GRACE_S


def over_by(received_at: float) -> float:
    """Return the time at which a response still streaming is broken off."""
    return received_at + CEILING_S
