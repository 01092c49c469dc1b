"""The request as the inference server gets it (``docs/wire.md`` §8.3).

The envelope's method, target and headers go out as they came, in order. Headers that belong to the
platform, to this hop or to the framing are set here: a caller's own value is dropped and never
reaches the function (`gateway.invocation.headers` drops some before).
"""

import re
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from http1.stream import Headers
from wire.deadlines import DEFAULT_POLL_S, MAX_INVOCATION_S, MAX_POLL_S, RESPONSE_GRACE_S
from wire.decoded_envelope import Envelope
from wire.grpc import TIMEOUT, decode_timeout, encode_timeout, is_grpc
from wire.headers import (
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOP_BY_HOP,
    NVCF_ALLOW_RERUN,
    NVCF_INVOCATION_REGION,
    NVCF_PASS_INTERIM,
    NVCF_POLL_SECONDS,
    NVCF_POLLED,
    NVCF_RUN_SECONDS,
    NVCF_UPGRADE,
    PLATFORM,
    misspelled,
)
from wire.http1 import HeadError, encode_request_start, is_token
from wire.ids import parse_uuid
from wire.websocket import WEBSOCKET
from worker_agent.job.modes import Mode, mode_of
from worker_agent.job.websocket import Upgrade, upgrade_of

_NAMES_SET_HERE = (
    PLATFORM
    | HOP_BY_HOP
    | {
        b"host",
        b"expect",
        CONTENT_LENGTH,
        NVCF_UPGRADE,
        NVCF_ALLOW_RERUN,
        NVCF_PASS_INTERIM,
        NVCF_POLL_SECONDS,
        NVCF_POLLED,
        NVCF_RUN_SECONDS,
        NVCF_INVOCATION_REGION,
        TIMEOUT,
    }
)
_SET_HERE = _NAMES_SET_HERE | misspelled(_NAMES_SET_HERE)
_MAX_KNOWN = 512
_MAX_KNOWN_BYTES = 64
_known_kept: set[bytes] = set()
"""Spellings of names that are forwarded; each is a token."""
_PLATFORM_LINES = (
    b"NVCF-REQID: %b\r\nNVCF-SUB: %b\r\nNVCF-NCAID: %b\r\nNVCF-ASSET-DIR: %b/%b\r\n"
    b"NVCF-LARGE-OUTPUT-DIR: %b/%b\r\nNVCF-MAX-RESPONSE-SIZE-BYTES: %d\r\n"
    b"NVCF-INVOCATION-REGION: %b\r\nNvcf-Poll-Seconds: %d\r\n"
)
_LINES = _PLATFORM_LINES.count(b"\n")
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"})
"""Methods that may be repeated (RFC 9110 §9.2.2)."""
_SAFE = frozenset({b"GET", b"HEAD"})
_METHODS_WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT"})
_JSON = (b"Content-Type", b"application/json")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_NS = 1_000_000_000


class RequestError(Exception):
    """The envelope does not hold a valid HTTP request."""


class PlatformHeaders:
    """The inference server's address and the headers that every request to it carries.

    ``has_compat``: responses are rewritten for clients of NVCF's polling routes.
    """

    __slots__ = (
        "asset_dir",
        "has_compat",
        "host",
        "large_output_dir",
        "port",
        "static_lines",
    )

    def __init__(
        self,
        authority: str,
        lines: Iterable[tuple[str, str]],
        *,
        asset_dir: str,
        large_output_dir: str,
        has_compat: bool = False,
    ) -> None:
        """``authority`` is ``host:port`` of the inference server; ``lines`` are names and values.

        Empty values are sent too, as NVCF does. Raises ValueError for a line break in a value.
        """
        text = "".join(f"{name}: {value}\r\n" for name, value in (("Host", authority), *lines))
        if text.count("\n") != text.count("\r\n") or "\0" in text:
            raise ValueError("a value sent to the inference server holds a line break")
        self.static_lines = text.encode()
        host, _, port = authority.rpartition(":")
        self.host, self.port = host.lower().encode(), int(port)
        self.has_compat = has_compat
        self.asset_dir = asset_dir.encode()
        self.large_output_dir = large_output_dir.encode()


class Outgoing:
    """A request ready to be sent.

    ``head`` ends with the blank line. ``body`` is the part of the body in the envelope.
    ``body_bytes`` is the announced length, ``None`` if the body goes out chunked. ``has_rest``:
    more of the body follows from the gateway. ``is_head``: the method is HEAD; ``is_safe``: GET or
    HEAD, which may be repeated whatever became of them (RFC 9110 §9.2.1). ``passes_interim``: the
    client is to get interim responses. The gateway waits ``window_s`` seconds for the response
    head; of these ``left_s`` are left by this machine's clock when the request is built.
    ``run_s`` is for how many seconds from its lease on it may run, 0 if that is not bounded.
    ``upgrade`` is set if it asks for a WebSocket: the rest that follows is no body then. ``mode``
    says how its response is passed on.
    """

    __slots__ = (
        "body",
        "body_bytes",
        "has_rest",
        "head",
        "is_head",
        "is_safe",
        "left_s",
        "mode",
        "passes_interim",
        "run_s",
        "upgrade",
        "window_s",
    )

    def __init__(  # noqa: PLR0913 - one argument per attribute
        self,
        head: bytes,
        body: bytes,
        body_bytes: int | None,
        *,
        has_rest: bool,
        is_head: bool,
        is_safe: bool,
        passes_interim: bool,
        window_s: float,
        left_s: float,
        run_s: int = 0,
        upgrade: Upgrade | None = None,
        mode: Mode = Mode.FINAL,
    ) -> None:
        self.mode = mode
        self.head = head
        self.body = body
        self.body_bytes = body_bytes
        self.has_rest = has_rest
        self.is_head = is_head
        self.is_safe = is_safe
        self.passes_interim = passes_interim
        self.window_s = window_s
        self.left_s = left_s
        self.run_s = run_s
        self.upgrade = upgrade


class _Prepared(NamedTuple):
    """What all requests with one head have in common.

    ``start`` are the first line and the lines of what is forwarded, ``length`` is the value of
    content-length, ``poll_s`` the caller's poll window. ``timeout_ns`` is
    the deadline of a gRPC call, counted from its arrival. ``run_s`` is as in `Outgoing`.
    """

    start: bytes
    upgrades: bool
    length: bytes | None
    poll_s: int
    region: bytes
    passes_interim: bool
    timeout_ns: int | None
    mode: Mode
    run_s: int


def _prepare(envelope: Envelope, platform_headers: PlatformHeaders) -> _Prepared:
    headers, dropped = _sort(envelope.headers)
    mode = Mode.FINAL
    if envelope.head.assets or dropped.get(NVCF_POLLED) != b"false":
        mode = mode_of(
            headers,
            is_polled=dropped.get(NVCF_POLLED) != b"false",
            has_compat=platform_headers.has_compat and NVCF_UPGRADE not in dropped,
        )
        if mode is Mode.COMPAT and not any(name.lower() == CONTENT_TYPE for name, _ in headers):
            headers = [*headers, _JSON]
    try:
        start = encode_request_start(envelope.method, envelope.path or b"/", headers)
    except HeadError as error:
        raise RequestError(str(error)) from error
    poll = dropped.get(NVCF_POLL_SECONDS)
    return _Prepared(
        start,
        dropped.get(NVCF_UPGRADE) == WEBSOCKET,
        dropped.get(CONTENT_LENGTH),
        poll_seconds(poll) if poll else DEFAULT_POLL_S,
        dropped.get(NVCF_INVOCATION_REGION, b""),
        dropped.get(NVCF_PASS_INTERIM) == b"true",
        decode_timeout(dropped.get(TIMEOUT, b"")),
        mode,
        _run_seconds(dropped.get(NVCF_RUN_SECONDS, b"")),
    )


def build_request(envelope: Envelope, platform_headers: PlatformHeaders, now_ns: int) -> Outgoing:
    """Return the request for the inference server; ``now_ns`` is wall time in nanoseconds.

    Raises `RequestError` for an illegal method, target, header or length.
    """
    prepared = envelope.head.prepared
    if not isinstance(prepared, _Prepared):
        prepared = envelope.head.prepared = _prepare(envelope, platform_headers)
    method, length, poll_s = envelope.method, prepared.length, prepared.poll_s
    body_bytes = _body_bytes(envelope, length)
    age_ns = now_ns - envelope.requested_at_ns
    platform_lines = _platform_lines(
        envelope, platform_headers, prepared.region, max(0, poll_s - max(0, age_ns) // _NS)
    )
    upgrade = None
    if prepared.upgrades:
        body_bytes = 0
        upgrade, length_line = upgrade_of(envelope.headers, envelope.request_id)
    elif body_bytes is None:
        length_line = b"Transfer-Encoding: chunked\r\n"
    elif body_bytes or length is not None or method not in _METHODS_WITHOUT_BODY:
        length_line = b"Content-Length: %d\r\n" % body_bytes
    else:
        length_line = b""
    if prepared.timeout_ns is not None:
        # What it has waited is not the inference server's any more.
        timeout = encode_timeout(prepared.timeout_ns - max(0, age_ns))
        length_line += b"%b: %b\r\n" % (TIMEOUT, timeout)
    head = b"%b%b%b%b\r\n" % (
        prepared.start,
        platform_lines,
        platform_headers.static_lines,
        length_line,
    )
    window_s = (poll_s or 1) + RESPONSE_GRACE_S
    mode = prepared.mode
    if mode and envelope.head.assets:
        head = b"%bNVCF-FUNCTION-ASSET-IDS: %b\r\n\r\n" % (head[:-2], _asset_ids(envelope))
    has_rest = envelope.request_token is not None
    return Outgoing(
        head,
        envelope.body,
        body_bytes,
        has_rest=has_rest,
        is_head=method == b"HEAD",
        is_safe=method in _SAFE,
        passes_interim=prepared.passes_interim,
        window_s=window_s,
        left_s=window_s - age_ns / _NS,
        run_s=prepared.run_s,
        upgrade=upgrade,
        mode=mode,
    )


def _asset_ids(envelope: Envelope) -> bytes:
    """Return the ids of the assets. Raises `RequestError` if one cannot be the name of a file."""
    ids = []
    for asset in envelope.head.assets:
        asset_id = parse_uuid(asset.asset_id.encode())
        if asset_id is None:
            raise RequestError("the id of an asset is not a UUID")
        ids.append(asset_id)
    return ",".join(ids).encode()


def is_grpc_call(envelope: Envelope) -> bool:
    """Return whether the caller speaks gRPC."""
    return any(name.lower() == CONTENT_TYPE and is_grpc(value) for name, value in envelope.headers)


def is_rerunnable(envelope: Envelope) -> bool:
    """Return whether the function may run the request a second time."""
    allowed = {value for name, value in envelope.headers if name.lower() == NVCF_ALLOW_RERUN}
    if b"never" in allowed or b"once" in allowed:
        return False
    return envelope.method in _IDEMPOTENT or b"false" not in allowed


def poll_seconds(value: bytes) -> int:
    """Return the caller's ``nvcf-poll-seconds``; the default if it is absent or not a number."""
    if not value or not _DIGITS.fullmatch(value):
        return DEFAULT_POLL_S
    return min(int(value), MAX_POLL_S)


def poll_left_s(envelope: Envelope, now_ns: int) -> float:
    """Return for how many seconds the client still waits, negative if it does not.

    Without the grace that its gateway adds.
    """
    value = next((v for n, v in envelope.headers if n.lower() == NVCF_POLL_SECONDS), b"")
    age_ns = now_ns - envelope.requested_at_ns if envelope.requested_at_ns else 0
    return poll_seconds(value) - max(0, age_ns) / _NS


def _run_seconds(value: bytes) -> int:
    """Return for how long a run is allowed; 0 if that is not bounded."""
    return min(int(value), int(MAX_INVOCATION_S)) if _DIGITS.fullmatch(value) else 0


def window_left_s(envelope: Envelope, now_ns: int) -> float:
    """Return what is left of the longest time for which a client may wait, in seconds.

    Negative if it is over. The window of a request whose body does not fit into the envelope stands
    still while the body flows, so its end is not known.
    """
    if not envelope.requested_at_ns:
        return inf
    longest_s = MAX_INVOCATION_S
    if envelope.request_token is None:
        value = next((v for n, v in envelope.headers if n.lower() == NVCF_POLL_SECONDS), b"")
        longest_s = (poll_seconds(value) or 1) + RESPONSE_GRACE_S
    return longest_s - (now_ns - envelope.requested_at_ns) / _NS


def _sort(given: Headers) -> tuple[Headers, dict[bytes, bytes]]:
    """Return the headers to forward, and the last value of each header that is set here."""
    kept: Headers = []
    dropped: dict[bytes, bytes] = {}
    for header in given:
        if header[0] in _known_kept:
            kept.append(header)
            continue
        name, value = header
        if not name.islower():
            name = name.lower()
        if name not in _SET_HERE:
            if not is_token(name):
                raise RequestError("a header name is not a token")
            kept.append(header)
            _keep(header[0])
        elif name == CONTENT_LENGTH and dropped.get(name, value) != value:
            raise RequestError("several content-length headers")
        else:
            dropped[name] = value
    return kept, dropped


def _keep(name: bytes) -> None:
    """Remember the spelling of a name that is not set here."""
    if len(_known_kept) < _MAX_KNOWN and len(name) <= _MAX_KNOWN_BYTES:
        _known_kept.add(name)


def _platform_lines(
    envelope: Envelope, platform_headers: PlatformHeaders, region: bytes, left_s: int
) -> bytes:
    """Return the header lines that the platform sets for one request."""
    request_id = envelope.request_id.encode()
    lines = _PLATFORM_LINES % (
        request_id,
        envelope.subject.encode(),
        envelope.nca_id.encode(),
        platform_headers.asset_dir,
        request_id,
        platform_headers.large_output_dir,
        request_id,
        envelope.max_direct_response_bytes,
        region,
        left_s,
    )
    if lines.count(b"\n") != _LINES or lines.count(b"\r") != _LINES or b"\0" in lines:
        raise RequestError("a value of the envelope holds a line break or NUL")
    return lines


def _body_bytes(envelope: Envelope, length: bytes | None) -> int | None:
    """Return the body's length, ``None`` if it is not known before the body's end."""
    if length is None:
        return None if envelope.request_token is not None else len(envelope.body)
    if not _DIGITS.fullmatch(length):
        raise RequestError("content-length is not a number")
    announced = int(length)
    if announced < len(envelope.body) or (
        envelope.request_token is None and announced != len(envelope.body)
    ):
        raise RequestError("content-length differs from the body")
    return announced
