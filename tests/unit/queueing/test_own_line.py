"""What a process knows of its own requests in a queue."""

from hypothesis import given
from hypothesis import strategies as st

from queueing.own_line import RequestLine


class Request:
    def __init__(self, at: float) -> None:
        self.at = at


def filled(*sequences: int) -> RequestLine[Request]:
    line = RequestLine[Request]()
    for sequence in sequences:
        line.store(Request(float(sequence)), sequence, float(sequence))
    return line


def test_nothing_waits_up_to_what_was_leased_or_answered() -> None:
    line = filled(3, 5, 8)
    assert line.waiting() == 3
    line.delivered = 4
    assert line.waiting() == 2
    line.answered(line.by_sequence[8], 8)
    assert (line.waiting(), line.has_waiting()) == (0, False)
    line.store(Request(9.0), 9, 9.0)
    assert (line.waiting(), line.has_waiting()) == (1, True)


def test_a_publish_that_is_not_decided_may_wait_unless_a_worker_has_it() -> None:
    line = filled()
    line.unacknowledged = 1
    assert line.has_waiting()
    line.leased_early = 1
    assert not line.has_waiting()


def test_a_queue_that_was_lost_counts_anew() -> None:
    line = filled(3, 5)
    line.answered(line.by_sequence[3], 3)
    lost = line.take_all()
    assert [request.at for request in lost] == [3.0, 5.0]
    line.store(Request(9.0), 1, 9.0)
    assert (line.waiting(), line.highest, line.leased()) == (1, 1, 0)


def test_who_waits_for_longest_was_published_first() -> None:
    line = filled(3, 5, 8)
    assert line.oldest_waiting_at(-1.0) == 3.0
    line.delivered = 5
    assert line.oldest_waiting_at(-1.0) == 8.0
    line.remove(8)
    assert line.oldest_waiting_at(-1.0) == -1.0


def test_a_recent_answer_says_that_none_has_waited() -> None:
    line = filled(3, 5)
    assert line.has_waited(2.0, now=10.0)
    assert not line.has_waited(8.0, now=10.0)
    line.answered(Request(9.0), 0)
    assert not line.has_waited(2.0, now=10.0)


@given(
    st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)), st.integers(0, 60), st.integers(0, 60)
)
def test_counts_are_those_of_a_plain_list(
    stored: set[int], removed: set[int], delivered: int, asked: int
) -> None:
    line = filled(*sorted(stored))
    for sequence in removed:
        line.remove(sequence)
    line.delivered = delivered
    left = stored - removed
    assert line.waiting() == len([one for one in left if one > delivered])
    assert line.has_waiting() == (line.waiting() > 0)
    own = line.own_line(asked, 7)
    assert own.waiting == len([one for one in left if one > asked])
