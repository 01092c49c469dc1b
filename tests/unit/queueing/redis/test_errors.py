"""What error replies mean. The texts are those of real servers."""

import pytest

from queueing.redis.errors import (
    NoResponse,
    Redirect,
    ReplyError,
    is_denied,
    is_passing,
    is_unknown,
    redirect_of,
)


@pytest.mark.parametrize(
    "text",
    [
        "NOSCRIPT No matching script. Please use EVAL.",
        "NOSCRIPT No matching script.",
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica. script: 1a, on @user_script:4.",
        "NOREPLICAS Not enough good replicas to write.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MOVED 3999 127.0.0.1:6381",
    ],
)
def test_what_passes_may_be_tried_again(text: str) -> None:
    assert is_passing(ReplyError(text))


def test_what_was_executed_or_may_have_been_is_not_tried_again() -> None:
    assert not is_passing(ReplyError("OOM command not allowed when used memory > 'maxmemory'."))
    assert not is_passing(ReplyError("ERR Script killed by user with SCRIPT KILL."))
    assert not is_passing(NoResponse("no reply"))


@pytest.mark.parametrize(
    "text",
    [
        "NOPERM User worker.a.b has no permissions to run the 'keys' command",
        "NOPERM No permissions to access a key",
        "ERR ACL failure in script: No permissions to access a key script: on @user_script:1.",
        "ERR The user executing the script can't access at least one of the keys mentioned in the "
        "command arguments script: 1a, on @user_script:1.",
    ],
)
def test_a_missing_right_is_found_in_and_outside_of_scripts(text: str) -> None:
    assert is_denied(ReplyError(text))
    assert not is_unknown(ReplyError(text))


def test_a_server_without_a_command_says_so() -> None:
    assert is_unknown(ReplyError("ERR unknown command 'ACL', with args beginning with: 'SETUSER'"))


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirect(3999, "127.0.0.1", 6381)),
        ("ASK 1 ::1:6381", Redirect(1, "::1", 6381)),
        ("MOVED 3999 :6381", Redirect(3999, "", 6381)),
        ("MOVED 3999 example.com:", None),
        ("MOVED x", None),
        ("ERR 3999 127.0.0.1:6381", None),
    ],
)
def test_redirects_are_read(text: str, redirect: Redirect | None) -> None:
    assert redirect_of(ReplyError(text)) == redirect
