"""Splits a command line into shell words, without expansions, in linear time. Pure.

The result is that of `shlex.split`, whose time grows with the square of a word's length: a word of
a million characters takes it many seconds.
"""

import re

_TOKEN = re.compile(
    r"""
    (?P<space>  [ \t\r\n]++ )
  | (?P<plain>  [^ \t\r\n'"\\]++ )
  | ' (?P<single> [^']*+ ) '
  | " (?P<double> (?: [^"\\]++ | \\. )*+ ) "
  | \\ (?P<escaped> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r'\\([\\"])')
"""Within double quotes a backslash before any other character is literal."""


def split(line: str) -> list[str]:
    """Return the words of ``line``. Raises `ValueError` for an unclosed quotation or escape."""
    words: list[str] = []
    parts: list[str] | None = None
    end = 0
    for token in _TOKEN.finditer(line):
        if token.start() != end:
            break
        end = token.end()
        kind = token.lastgroup
        if kind == "space":
            if parts is not None:
                words.append("".join(parts))
                parts = None
            continue
        text = token[kind or 0]
        if kind == "double" and "\\" in text:
            text = _ESCAPED.sub(r"\1", text)
        if parts is None:
            parts = []
        parts.append(text)
    if end != len(line):
        is_quote = line[end] in "'\""
        raise ValueError("no closing quotation" if is_quote else "no escaped character")
    if parts is not None:
        words.append("".join(parts))
    return words
