"""Room for requests at the inference server, and how many to ask the queue for.

A slot is held from the lease until the inference server has nothing more to do for the request.
Delivering what it answered needs no slot, yet is bounded too: clients that read nothing must not
make the agent hold ever more answers. Pure.
"""


class Slots:
    """Counts of jobs by what they still need.

    ``limit`` is the most the inference server works on at a time; ``delivering_limit`` the most
    answers on their way to a gateway before no more work is asked for. After a `resize` more may
    run than ``limit``, until they end.
    """

    __slots__ = ("delivering", "delivering_limit", "is_open", "limit", "running")

    def __init__(self, limit: int, delivering_limit: int) -> None:
        self.resize(limit, delivering_limit)
        self.running = 0
        self.delivering = 0
        self.is_open = False
        """Whether new work is wanted at all: the inference server is healthy, no drain runs."""

    def resize(self, limit: int, delivering_limit: int) -> None:
        """Take so many from now on; what runs is not touched."""
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
        """Take a slot for a leased request; ``False`` when there is none."""
        if not self.is_open or self.running >= self.limit:
            return False
        self.running += 1
        return True

    def give_back(self) -> None:
        """A slot was taken for nothing."""
        if self.running == 0:
            raise AssertionError("a slot given back that nobody held")
        self.running -= 1

    def is_full(self) -> bool:
        """Whether undelivered answers alone keep new work away."""
        return self.delivering >= self.delivering_limit

    def release(self) -> None:
        """The inference server is done; the answer is on its way."""
        if self.running == 0:
            raise AssertionError("a slot released that nobody held")
        self.running -= 1
        self.delivering += 1

    def delivered(self) -> None:
        """The job is over."""
        if self.delivering == 0:
            raise AssertionError("a delivery ended that had not begun")
        self.delivering -= 1
