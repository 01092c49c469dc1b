"""What is shown of a server's output while it loads."""

import pytest

from gateway.dev.progress import MAX_SHOWN_CHARS, last_text


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ([], ""),
        (["", "  "], ""),
        (["INFO loading", ""], "INFO loading"),
        (["Loading:  10%|#  |\rLoading:  50%|## |\r"], "Loading:  50%|## |"),
        (["\x1b[32mINFO\x1b[0m:  ready\x1b[K"], "INFO:  ready"),
        (["\x1b]0;a title\x07text"], "text"),
        (["a\tb\x00c"], "a b c"),
        (["first", "\x1b[2K\r"], "first"),
    ],
)
def test_the_last_text_that_a_terminal_would_show(lines: list[str], shown: str) -> None:
    assert last_text(lines) == shown


def test_a_long_line_is_cut() -> None:
    assert last_text(["x" * 10_000]) == "x" * MAX_SHOWN_CHARS + "..."
