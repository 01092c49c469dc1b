"""The options of a command that serves, read without a library for command lines.

What reads the command lines of people, and prints help and errors, stays in memory to the end of
the process, 8 MiB with all that it imports. So a program that serves reads the plain form itself,
and imports the library for anything else.
"""

from collections.abc import Collection, Sequence


def plain_options(words: Sequence[str], names: Collection[str]) -> dict[str, str] | None:
    """Return the values of ``--name value`` and ``--name=value`` by name, without the hyphens.

    `None` if ``words`` contain anything else than options of these ``names`` with a value. Of an
    option that is given twice the last one counts.
    """
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, is_joined, value = word.partition("=")
        if not is_joined:
            value = next(rest, "")
        # A value like an option, or none, is for the library to judge.
        if name.removeprefix("--") not in names or not name.startswith("--"):
            return None
        if not value or value.startswith("-"):
            return None
        found[name.removeprefix("--")] = value
    return found
