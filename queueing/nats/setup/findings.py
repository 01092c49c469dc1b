"""What is wrong with NATS servers for the gateway, judged from what they say. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from queueing.nats.jetstream import (
    MEMORY_EXCEEDED,
    NO_SUITABLE_PEERS,
    REPLICAS_NOT_SUPPORTED,
    STORAGE_EXCEEDED,
    JetStreamError,
    StreamSettings,
)

OLDEST = (2, 11, 2)
"""2.11 can let single messages expire, which claims need; 2.11.2 has ``default_sentinel``."""
_NEEDED_PAYLOAD = 1 << 20
_WANTED_PAYLOAD = 6 << 20
"""The largest message of a queue."""
_WANTED_BYTES = 256 << 20
_FULL = 0.8
_SPARE = 100
"""Streams and consumers that an account should have room for."""
_CLOCK_S = 1.0
_EXPIRY_S = 30 * 86_400
_SECOND_NS = 1_000_000_000
_MAX_STREAMS = 10027
_MAX_CONSUMERS = 10026
_NOT_ENABLED = frozenset({10039, 10076})


class Level(StrEnum):
    """Whether something does not work, or works at a risk."""

    ERROR = "error"
    WARNING = "warning"


class Finding(NamedTuple):
    """``subject`` is a server, a stream, an account or a login; ``change`` is what to do."""

    level: Level
    subject: str
    problem: str
    change: str


class StoreBuckets(NamedTuple):
    """The store's buckets with the ``replicas`` of the settings. ``in_memory`` are some of them."""

    prefix: str
    replicas: int
    buckets: Sequence[str]
    in_memory: frozenset[str]

    @property
    def streams(self) -> dict[str, bool]:
        """The streams of the buckets, and whether each is in memory."""
        return {f"KV_{self.prefix}_{name}": name in self.in_memory for name in self.buckets}


def error(subject: str, problem: str, change: str) -> Finding:
    """Return what does not work."""
    return Finding(Level.ERROR, subject, problem, change)


def warning(subject: str, problem: str, change: str) -> Finding:
    """Return what works at a risk."""
    return Finding(Level.WARNING, subject, problem, change)


def judge_server(info: Mapping[str, Any], now_s: float) -> Iterator[Finding]:
    """Judge what a server says about itself: its ``VARZ``, or its INFO, which has less."""
    name = str(info.get("server_name", "?"))
    version = str(info.get("version", ""))
    if _version(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield error(name, f"it is nats-server {version}", f"run {oldest} or a newer one")
    payload = int(info.get("max_payload", _NEEDED_PAYLOAD))
    if payload < _WANTED_PAYLOAD:
        found = error if payload < _NEEDED_PAYLOAD else warning
        yield found(
            name,
            f"max_payload is {_size(payload)}: larger requests and records are refused",
            "set max_payload: 8MB in its configuration",
        )
    jetstream = info.get("jetstream")
    if not jetstream or (isinstance(jetstream, Mapping) and not jetstream.get("config")):
        yield error(name, "JetStream is off", "add a block jetstream { … } to its configuration")
    elif isinstance(jetstream, Mapping):
        yield from _judge_jetstream(name, jetstream)
    if clock := info.get("now"):
        yield from judge_clock(name, str(clock), now_s)
    if until := info.get("tls_cert_not_after"):
        left_s = unix_s(str(until)) - now_s
        if 0 < unix_s(str(until)) and left_s < _EXPIRY_S:
            yield warning(
                name,
                f"its certificate expires at {until}",
                "renew it ('gateway nats rotate DIR certificates') and reload the server",
            )


def judge_clock(subject: str, clock: str, now_s: float) -> Iterator[Finding]:
    """Judge the time that a server has sent, which arrived at ``now_s``."""
    off_s = unix_s(clock) - now_s
    if abs(off_s) > _CLOCK_S:
        yield warning(
            subject,
            f"its clock is {abs(off_s):.1f} s {'ahead of' if off_s > 0 else 'behind'} this one's",
            "keep the clocks of servers and gateways together (NTP): logins expire by them",
        )


def _judge_jetstream(name: str, jetstream: Mapping[str, Any]) -> Iterator[Finding]:
    config, stats = jetstream["config"], jetstream.get("stats", {})
    for limit, used, setting, what in (
        ("max_memory", "memory", "max_mem", "queues"),
        ("max_storage", "storage", "max_file", "the store"),
    ):
        most = int(config.get(limit, 0))
        if 0 <= most < _WANTED_BYTES:
            yield error(
                name,
                f"jetstream.{setting} is {_size(most)}, too little for {what}",
                f"set {setting} to {_size(_WANTED_BYTES)} or more",
            )
        elif most > 0 and int(stats.get(used, 0)) > _FULL * most:
            yield warning(
                name,
                f"{_size(int(stats[used]))} of {_size(most)} ({setting}) are in use",
                f"raise {setting}, or remove what is not the gateway's",
            )
    if not config.get("sync_always"):
        interval_s = int(config.get("sync_interval", 0)) / _SECOND_NS
        yield warning(
            name,
            f"it writes to the disk every {interval_s:g} s: when machines crash, what the API "
            "has confirmed in this time is lost",
            "set sync_interval: always in its block jetstream",
        )
    meta = jetstream.get("meta")
    if not isinstance(meta, Mapping):
        return
    if not meta.get("leader"):
        yield error(
            name,
            "JetStream has no leader in the cluster",
            "start the missing servers: more than half of them must be connected",
        )
    for peer in meta.get("replicas") or ():
        if peer.get("offline"):
            yield error(
                str(peer.get("name", "?")),
                f"{name} does not reach it",
                "start it, or remove it from the cluster for good (nats server cluster "
                "peer-remove)",
            )


def judge_cluster(
    servers: Sequence[Mapping[str, Any]], url_count: int, store: StoreBuckets | None
) -> Iterator[Finding]:
    """Judge all servers together, from their ``VARZ``."""
    with_jetstream = [one["jetstream"] for one in servers if one.get("jetstream", {}).get("config")]
    sizes = [int(js["meta"].get("cluster_size", 0)) for js in with_jetstream if js.get("meta")]
    size = max(sizes, default=1)
    if size > len(with_jetstream):
        yield error(
            "cluster", f"{len(with_jetstream)} of {size} servers respond", "start the others"
        )
    if size > 1 and size % 2 == 0:
        yield warning(
            "cluster",
            f"it has {size} servers: no more may be lost than with {size - 1}",
            "run an odd number of servers",
        )
    if len(servers) > 1 and url_count == 1:
        yield warning(
            "settings",
            f"nats.urls names one of {len(servers)} servers: nobody can connect while it is away",
            "name all servers in nats.urls",
        )
    if store is not None and size > 1 and store.replicas == 1:
        yield warning(
            "settings",
            "store.replicas is 1: the store is away, or lost, with one server",
            "set store.replicas = 3; existing buckets keep theirs",
        )


def judge_operator(servers: Sequence[Mapping[str, Any]], public_key: str) -> Iterator[Finding]:
    """Judge whether the servers trust accounts that are signed with the gateway's key."""
    for server in servers:
        trusted: set[str] = set()
        for claim in server.get("trusted_operators_claim") or ():
            trusted |= {claim.get("sub", ""), *claim.get("nats", {}).get("signing_keys", ())}
        if public_key not in trusted:
            yield error(
                str(server.get("server_name", "?")),
                "it does not trust the key in nats.operator_seed_file: its operator is another, or "
                "has no such signing key",
                "give the gateways the seed of the operator in the server's configuration, or of "
                "one of its signing keys; restart the server after a rotation",
            )


def judge_account(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge JetStream's limits and use in the gateway's account (``$JS.API.INFO``)."""
    tiers = info.get("tiers") or {"": info}
    for tier, found in tiers.items():
        subject = f"gateway's account {tier}".rstrip()
        limits = found.get("limits", {})
        for limit, used, unit, spare in (
            ("max_memory", "memory", _size, 0),
            ("max_storage", "storage", _size, 0),
            ("max_streams", "streams", str, _SPARE),
            ("max_consumers", "consumers", str, _SPARE),
        ):
            most, now = int(limits.get(limit, -1)), int(found.get(used, 0))
            if most == 0 or (most > 0 and (now > _FULL * most or now + spare > most)):
                yield (error if now >= most else warning)(
                    subject,
                    f"{unit(now)} of {unit(most)} ({limit}) are in use",
                    "raise the limit in the account's document: each deployed version needs a "
                    "stream and a consumer",
                )


def judge_streams(
    streams: Sequence[Mapping[str, Any]], store: StoreBuckets | None, queue_replicas: int
) -> Iterator[Finding]:
    """Judge the streams of the gateway's account (``STREAM.LIST``).

    ``queue_replicas`` are the copies that queues should have.
    """
    buckets = store.streams if store is not None else {}
    for stream in streams:
        config, cluster = stream["config"], stream.get("cluster") or {}
        name, copies = str(config["name"]), int(config.get("num_replicas", 1))
        wanted = queue_replicas if name.startswith("rq_") else 0
        if store is not None and name in buckets:
            wanted = store.replicas
            storage = "memory" if buckets[name] else "file"
            if config.get("storage") != storage:
                yield error(
                    name,
                    f"it is kept in {config.get('storage')}, not in {storage}",
                    "move the store: export it, delete the bucket, import it",
                )
        if copies < wanted:
            yield warning(
                name,
                f"it has {copies} of {wanted} copies, which is fixed when it is made",
                f"nats stream edit {name} --replicas {wanted}",
            )
        missing = [one for one in cluster.get("replicas") or () if one.get("offline")]
        if cluster and not cluster.get("leader"):
            yield error(name, "it has no leader", "start the servers that have its copies")
        for one in missing:
            yield error(
                name,
                f"its copy on {one.get('name')} is away",
                "start that server, or have the copy made elsewhere (nats stream cluster "
                f"peer-remove {name})",
            )


def judge_refusal(what: str, copies: int, refusal: JetStreamError) -> Finding:
    """Return why ``what``, with so many copies (0: as many as there can be), was not made."""
    change = "see the message of the server"
    if refusal.code in {NO_SUITABLE_PEERS, REPLICAS_NOT_SUPPORTED}:
        change = (
            f"{copies} copies need as many servers with JetStream and room: add servers or memory, "
            "or lower queue.replicas or store.replicas"
        )
    elif refusal.code in {MEMORY_EXCEEDED, STORAGE_EXCEEDED}:
        change = "raise max_mem and max_file of the servers, or the limits of the account"
    elif refusal.code in {_MAX_STREAMS, _MAX_CONSUMERS}:
        change = "raise the limits of the gateway's account: each version needs a stream"
    elif refusal.code in _NOT_ENABLED:
        change = "give the gateway's account JetStream limits (mem_storage, disk_storage)"
    return error("JetStream", f"{what} cannot be made: {refusal}", change)


def judge_queue(region: str, settings: StreamSettings, refusal: JetStreamError) -> Finding:
    """Return why a queue of a region was not made."""
    if settings.region_tag and refusal.code == NO_SUITABLE_PEERS:
        return error(
            f"region {region}",
            f"no queue can be made there: {refusal}",
            f'give servers server_tags: ["{settings.region_tag}:{region}"]: as many as '
            "queue.replicas, with room",
        )
    return judge_refusal("a queue", settings.replicas, refusal)


def judge_login(expires_at: int | None, now_s: float) -> Iterator[Finding]:
    """Judge the end of the gateway's login, in Unix seconds; `None` is never."""
    if expires_at is not None and expires_at - now_s < _EXPIRY_S:
        yield warning(
            "nats.credentials_file",
            f"the login expires in {(expires_at - now_s) / 3600:.0f} h",
            "make a new one ('gateway nats rotate DIR gateway-user')",
        )


def unix_s(text: str) -> float:
    """Return a time of a server in Unix seconds."""
    # Python 3.11 takes at most six digits of a second.
    shortened = re.sub(r"(\.\d{6})\d+", r"\1", text)
    return datetime.fromisoformat(shortened).timestamp()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", text)[:3])


def _size(count: int) -> str:
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):g}{unit}B"
    return f"{count} B"
