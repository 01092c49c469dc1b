from hypothesis import given
from hypothesis import strategies as st

from queueing.position import Sequences, position


def test_the_first_in_line_is_1_and_a_leased_one_is_0() -> None:
    line = Sequences()
    for sequence in range(1, 1501):
        line.add(sequence)
    assert position(0, 1, line.between(0, 1)) == 1
    assert position(0, 1500, line.between(0, 1500)) == 1500
    assert position(499, 500, line.between(499, 500)) == 1
    assert position(500, 500, line.between(500, 500)) == 0


def test_a_sequence_that_arrives_late_keeps_the_order() -> None:
    line = Sequences()
    for sequence in (1, 3, 2):
        line.add(sequence)
    assert line.between(1, 3) == 1


@given(
    st.lists(st.integers(1, 400), unique=True, max_size=300),
    st.lists(st.booleans(), min_size=300, max_size=300),
    st.integers(0, 400),
    st.integers(1, 401),
)
def test_counting_equals_counting_one_by_one(
    sequences: list[int], leaves: list[bool], delivered: int, asked: int
) -> None:
    line = Sequences()
    present = set()
    for sequence in sequences:
        line.add(sequence)
        present.add(sequence)
    for sequence, is_leaving in zip(sequences, leaves, strict=False):
        if is_leaving:
            line.remove(sequence)
            present.remove(sequence)
    assert line.between(delivered, asked) == sum(delivered < one < asked for one in present)
    assert len(line) == len(present)


def test_what_left_the_line_takes_no_room() -> None:
    line = Sequences()
    for sequence in range(1, 100_001):
        line.add(sequence)
        if sequence > 10:
            line.remove(sequence - 10)
    assert len(line) == 10
    assert line.stored < 200
