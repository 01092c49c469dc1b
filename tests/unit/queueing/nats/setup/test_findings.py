"""What is found in what servers say: what a test cannot plant in a real one, and the bounds."""

from datetime import UTC, datetime
from typing import Any

import pytest

from queueing.nats.jetstream import JetStreamError
from queueing.nats.setup.findings import (
    Finding,
    Level,
    StoreBuckets,
    judge_account,
    judge_clock,
    judge_cluster,
    judge_login,
    judge_operator,
    judge_refusal,
    judge_server,
    judge_streams,
    unix_s,
)

NOW = 1_800_000_000.0
DAY = 86_400
STORE = StoreBuckets("gateway", 3, ("keys", "instances"), frozenset({"instances"}))


def at(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat()


def server(**changed: Any) -> dict[str, Any]:
    """Return a ``VARZ`` without a fault."""
    jetstream = {
        "config": {"max_memory": 1 << 30, "max_storage": 1 << 30, "sync_always": True},
        "stats": {"memory": 0, "storage": 0},
    }
    sound = {
        "server_name": "s1",
        "version": "2.15.1",
        "max_payload": 8 << 20,
        "now": at(NOW),
        "tls_cert_not_after": at(NOW + 60 * DAY),
        "jetstream": jetstream,
    }
    return {**sound, **changed}


def jetstream(**changed: Any) -> dict[str, Any]:
    return {**server()["jetstream"], **changed}


def only(findings: list[Finding], level: Level) -> str:
    """Return the problem of the one finding."""
    (one,) = findings
    assert one.level is level
    return one.problem


def test_nothing_is_found_in_what_is_sound() -> None:
    assert list(judge_server(server(), NOW)) == []
    without_tls = server(tls_cert_not_after="0001-01-01T00:00:00Z")
    assert list(judge_server(without_tls, NOW)) == []
    # INFO has less than VARZ.
    info = {"server_name": "s1", "version": "2.12.0-RC.1", "max_payload": 8 << 20}
    assert list(judge_server({**info, "jetstream": True}, NOW)) == []


@pytest.mark.parametrize(
    ("changed", "level", "problem"),
    [
        ({"version": "2.10.29"}, Level.ERROR, "nats-server 2.10.29"),
        ({"version": "2.11.1"}, Level.ERROR, "nats-server 2.11.1"),
        ({"max_payload": 1 << 20}, Level.WARNING, "max_payload is 1MB"),
        ({"max_payload": 1 << 19}, Level.ERROR, "max_payload is 512KB"),
        ({"now": at(NOW + 90)}, Level.WARNING, "90.0 s ahead of"),
        ({"now": at(NOW - 90)}, Level.WARNING, "90.0 s behind"),
        ({"tls_cert_not_after": at(NOW + DAY)}, Level.WARNING, "certificate expires"),
        ({"jetstream": {}}, Level.ERROR, "JetStream is off"),
        (
            {"jetstream": jetstream(stats={"memory": 900 << 20})},
            *(Level.WARNING, "900MB of 1GB (max_mem)"),
        ),
        ({"jetstream": jetstream(meta={"cluster_size": 3})}, Level.ERROR, "has no leader"),
        (
            {"jetstream": jetstream(meta={"leader": "s1", "replicas": [{"offline": True}]})},
            *(Level.ERROR, "does not reach it"),
        ),
    ],
)
def test_a_server_is_judged(changed: dict[str, Any], level: Level, problem: str) -> None:
    assert problem in only(list(judge_server(server(**changed), NOW)), level)


def test_a_second_of_difference_is_no_fault() -> None:
    assert list(judge_clock("s1", at(NOW + 0.9), NOW)) == []
    assert unix_s("2027-01-15T08:00:00.123456789Z") == pytest.approx(NOW + 0.123456)


def test_a_cluster_of_two_is_no_better_than_one_server() -> None:
    pair = [server(jetstream=jetstream(meta={"cluster_size": 2})) for _ in range(2)]
    assert "2 servers" in only(list(judge_cluster(pair, 2, STORE)), Level.WARNING)
    three = [server(jetstream=jetstream(meta={"cluster_size": 3})) for _ in range(3)]
    assert list(judge_cluster(three, 3, STORE)) == []
    assert "2 of 3" in only(list(judge_cluster(three[:2], 3, STORE)), Level.ERROR)


def test_a_signing_key_is_trusted_like_its_operator() -> None:
    claim = {"sub": "OA", "nats": {"signing_keys": ["OB"]}}
    servers = [server(trusted_operators_claim=[claim]), server(server_name="s2")]
    assert list(judge_operator(servers[:1], "OA")) == list(judge_operator(servers[:1], "OB")) == []
    assert "does not trust" in only(list(judge_operator(servers, "OB")), Level.ERROR)


def test_limits_of_the_account_leave_room_for_versions() -> None:
    assert list(judge_account({"limits": {"max_streams": -1}, "streams": 5000})) == []
    used = {"limits": {"max_streams": 200}, "streams": 150}
    assert "150 of 200" in only(list(judge_account(used)), Level.WARNING)
    full = {"limits": {"max_memory": 0}}
    assert "max_memory" in only(list(judge_account(full)), Level.ERROR)
    in_tier = {"tiers": {"R3": used}}
    assert "150 of 200" in only(list(judge_account(in_tier)), Level.WARNING)


def stream(name: str, copies: int = 3, storage: str = "file", **cluster: Any) -> dict[str, Any]:
    config = {"name": name, "num_replicas": copies, "storage": storage}
    return {"config": config, "cluster": {"leader": "s1", **cluster}}


def test_streams_have_their_copies_and_storage() -> None:
    sound = [
        stream("KV_gateway_keys"),
        stream("KV_gateway_instances", storage="memory"),
        stream("rq_local_v", storage="memory"),
        stream("of_somebody_else", 1),
    ]
    assert list(judge_streams(sound, STORE, 3)) == []
    for one, level, problem in (
        (stream("KV_gateway_keys", 1), Level.WARNING, "1 of 3 copies"),
        (stream("KV_gateway_keys", storage="memory"), Level.ERROR, "kept in memory"),
        (stream("rq_local_v", 1), Level.WARNING, "1 of 3 copies"),
        (stream("rq_local_v", leader=""), Level.ERROR, "no leader"),
        (
            stream("rq_local_v", replicas=[{"name": "s2", "offline": True}]),
            *(Level.ERROR, "copy on s2 is away"),
        ),
    ):
        assert problem in only(list(judge_streams([one], STORE, 3)), level)


def test_a_refusal_says_what_to_change() -> None:
    for code, change in (
        (10005, "3 copies need"),
        (10047, "raise max_mem"),
        (10027, "raise the limits"),
        (10039, "give the gateway's account"),
        (1, "message of the server"),
    ):
        assert change in judge_refusal("a queue", 3, JetStreamError(code, "no")).change


def test_a_login_that_ends_soon_is_told() -> None:
    assert list(judge_login(None, NOW)) == []
    assert list(judge_login(int(NOW) + 31 * DAY, NOW)) == []
    assert "in 24 h" in only(list(judge_login(int(NOW) + DAY, NOW)), Level.WARNING)
