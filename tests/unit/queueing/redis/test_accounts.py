"""The rights and passwords of workers' users."""

import re
from hashlib import sha256

import pytest

from queueing.redis.accounts import SCRIPT_COMMANDS, RedisLogin, WorkerUsers, read_login
from queueing.redis.scripts import WORKER, script

USERS = WorkerUsers("secret", "eu-1")
NOW = 1_790_000_000.0
HOUR_S = 3600.0


def accepts(rules: list[bytes], password: str) -> bool:
    return b"#" + sha256(password.encode()).hexdigest().encode() in rules


def test_a_user_may_run_what_the_scripts_of_workers_call_and_no_more() -> None:
    called = {
        f"+{command.lower()}".encode()
        for name in WORKER
        for command in re.findall(r"call\('(\w+)'", script(name).text.decode())
    }
    # The worker's own, for requests that are too long for a message.
    assert set(SCRIPT_COMMANDS) == called | {b"+hget"}


def test_a_user_reaches_the_keys_and_channels_of_its_version() -> None:
    rules = USERS.rules("5f0c", NOW, NOW + HOUR_S)
    assert rules[:3] == [b"worker.eu-1.5f0c", b"reset", b"on"]
    assert {rule for rule in rules if rule[:1] in b"~&%"} == {
        b"~rq:{eu-1.5f0c}",
        b"~rq:{eu-1.5f0c}:*",
        b"&rq:{eu-1.5f0c}:*",
    }


def test_a_password_is_good_until_it_ends_and_some_hours_later_no_more() -> None:
    ends_at = NOW + 2 * HOUR_S
    password = USERS.password("5f0c", ends_at)
    for now in (NOW, NOW + HOUR_S, ends_at):
        assert accepts(USERS.rules("5f0c", now, now + 24 * HOUR_S), password)
    late = ends_at + 6 * HOUR_S
    assert not accepts(USERS.rules("5f0c", late, late + 24 * HOUR_S), password)


def test_all_processes_make_the_same_password_and_nobody_else_does() -> None:
    password = USERS.password("5f0c", NOW)
    assert WorkerUsers("secret", "eu-1").password("5f0c", NOW) == password
    for users, version_id in (
        (USERS, "5f0d"),
        (WorkerUsers("secret", "us"), "5f0c"),
        (WorkerUsers("another", "eu-1"), "5f0c"),
    ):
        assert users.password(version_id, NOW) != password


def test_a_login_without_an_end_has_not_too_many_passwords() -> None:
    ends_at = NOW + 10_000 * HOUR_S
    rules = USERS.rules("5f0c", NOW, ends_at)
    assert len(rules) < 300
    assert accepts(rules, USERS.password("5f0c", ends_at))


def test_a_login_is_read_from_the_response_to_a_connect() -> None:
    document = {"urls": ["redis://a"], "sentinelMaster": "m", "user": "u", "password": "p"}
    login = read_login({"redis": document})
    assert login == RedisLogin(("redis://a",), "m", "u", "p")
    assert "'p'" not in repr(login)
    assert read_login({"nats": {}}) is None
    for broken in ("text", {**document, "urls": None}, {"urls": []}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            read_login({"redis": broken})
