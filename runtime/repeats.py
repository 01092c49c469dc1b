"""Lines that would be the same again and again: which of them to write."""

import time

EVERY_S = 60.0
_MOST = 100


class Repeats:
    """Lets a text through when it is new, and then once a minute, until `forget`."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._written_at: dict[str, float] = {}

    def is_due(self, text: str) -> bool:
        """Whether to write the text; if so, it counts as written."""
        now = time.monotonic()
        if now - self._written_at.get(text, -self._every_s) < self._every_s:
            return False
        if len(self._written_at) >= _MOST:
            self._written_at.clear()
        self._written_at[text] = now
        return True

    def forget(self) -> None:
        """What failed has succeeded: each text is new again."""
        self._written_at.clear()
