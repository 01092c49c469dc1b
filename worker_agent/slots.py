"""Room for requests at the inference server, and how many to ask the queue for.

A job takes a slot with its lease. The slot is free when the inference server has nothing more to do
for it, which is before the job ends if the response is still in delivery, and after it if the job
was cancelled. Deliveries need no slot, but jobs are bounded too: clients that do not read must not
make the agent hold more and more responses. Pure.
"""


class Slots:
    """Counts the requests at the inference server and the jobs that are not over.

    ``limit`` is how many requests the inference server works on at a time, at most;
    ``delivering_limit`` is how many jobs more there may be, whose responses are in delivery.
    After a `resize` more than ``limit`` may run, until they end.
    """

    __slots__ = ("delivering_limit", "is_open", "jobs", "limit", "running")

    def __init__(self, limit: int, delivering_limit: int) -> None:
        self.resize(limit, delivering_limit)
        self.running = 0
        self.jobs = 0
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
        if not self.is_open:
            return 0
        return min(self.limit - self.running, self.limit + self.delivering_limit - self.jobs)

    def take(self) -> bool:
        """Take a slot for a leased request; return ``False`` if there is none."""
        if not self.is_open or self.running >= self.limit:
            return False
        self.running += 1
        self.jobs += 1
        return True

    def give_back(self) -> None:
        """Give back a slot that was taken for a request which will not run."""
        self.release()
        self.finish()

    def release(self) -> None:
        """The inference server is done with a request."""
        if self.running == 0:
            raise AssertionError("a slot released that was not taken")
        self.running -= 1

    def finish(self) -> bool:
        """A job is over. Return whether jobs in delivery, and not the slots, kept new work away."""
        if self.jobs == 0:
            raise AssertionError("a job ended that had not begun")
        was_full = self.jobs - self.running >= self.delivering_limit
        self.jobs -= 1
        return was_full
