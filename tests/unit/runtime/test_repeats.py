"""Which of the lines that would be the same are written."""

from runtime.repeats import Repeats


def test_a_text_is_written_once_and_again_after_a_success() -> None:
    repeats = Repeats()
    assert [repeats.is_due(text) for text in ("a", "a", "b", "a")] == [True, False, True, False]
    repeats.forget()
    assert repeats.is_due("a")


def test_a_text_is_written_again_after_a_while() -> None:
    repeats = Repeats(every_s=0)
    assert repeats.is_due("a")
    assert repeats.is_due("a")
