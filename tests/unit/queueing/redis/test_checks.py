"""Which settings of a server are unsafe."""

import pytest

from queueing.redis.checks import unsafe_settings

SAFE = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "min-replicas-to-write": "1",
    "client-output-buffer-limit": "normal 0 0 0 slave 1 1 60 pubsub 33554432 8388608 60",
}


def test_safe_settings_are_not_mentioned() -> None:
    assert unsafe_settings(SAFE, replicas=2) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("maxmemory-policy", "volatile-lru"),
        ("appendonly", "no"),
        ("min-replicas-to-write", "0"),
        ("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0 pubsub 1048576 0 0"),
        ("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0 pubsub 0 1048576 60"),
    ],
)
def test_an_unsafe_setting_is_found(setting: str, value: str) -> None:
    (found,) = unsafe_settings({**SAFE, setting: value}, replicas=1)
    assert (found.setting, found.value) == (setting, value)


def test_a_master_without_replicas_need_not_wait_for_one() -> None:
    assert unsafe_settings({**SAFE, "min-replicas-to-write": "0"}, replicas=0) == []


def test_without_limits_there_is_room_and_what_is_unknown_is_not_judged() -> None:
    unlimited = "normal 0 0 0 replica 0 0 0 pubsub 0 0 0"
    assert unsafe_settings({**SAFE, "client-output-buffer-limit": unlimited}, replicas=1) == []
    assert unsafe_settings({}, replicas=1) == []
