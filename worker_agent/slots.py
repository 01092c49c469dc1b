"""Room for requests at the inference server, and how many to ask the queue for.

A job holds a slot from its lease until the inference server has nothing more to do for it. The
delivery of its response needs no slot, but deliveries are bounded too: clients that do not read
must not make the agent hold more and more responses. Pure.
"""


class Slots:
    """Counts the jobs at the inference server and those in delivery.

    ``limit`` is how many requests the inference server works on at a time, at most;
    ``delivering_limit`` is how many responses may be in delivery before no more work is asked for.
    After a `resize` more than ``limit`` may run, until they end.
    """

    __slots__ = ("delivering", "delivering_limit", "is_open", "limit", "running")

    def __init__(self, limit: int, delivering_limit: int) -> None:
        self.resize(limit, delivering_limit)
        self.running = 0
        self.delivering = 0
        self.is_open = False
        """Whether the agent pulls at all: the inference server is healthy, no drain runs."""

    def resize(self, limit: int, delivering_limit: int) -> None:
        """Set new limits; running jobs are not affected. Raises ValueError below 1."""
        if limit < 1 or delivering_limit < 1:
            raise ValueError("limits start at 1")
        self.limit = limit
        self.delivering_limit = delivering_limit

    def free(self) -> int:
        """Return how many requests may be leased now; 0 or less: none."""
        if not self.is_open or self.is_full():
            return 0
        return self.limit - self.running

    def take(self) -> bool:
        """Take a slot for a leased request; return ``False`` if there is none."""
        if not self.is_open or self.running >= self.limit:
            return False
        self.running += 1
        return True

    def give_back(self) -> None:
        """Give back a slot that was taken for a request which will not run."""
        if self.running == 0:
            raise AssertionError("a slot given back that was not taken")
        self.running -= 1

    def is_full(self) -> bool:
        """Return whether the responses in delivery alone keep new work away."""
        return self.delivering >= self.delivering_limit

    def release(self) -> None:
        """The inference server is done; the response is in delivery."""
        if self.running == 0:
            raise AssertionError("a slot released that was not taken")
        self.running -= 1
        self.delivering += 1

    def delivered(self) -> None:
        """The job is over."""
        if self.delivering == 0:
            raise AssertionError("a delivery ended that had not begun")
        self.delivering -= 1
