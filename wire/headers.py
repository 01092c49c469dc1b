"""Names of the headers that the programs interpret, and which headers are forwarded.

Header names are lower case inside both programs: the parsers convert them.
"""

from collections.abc import Collection
from functools import lru_cache

CONTENT_TYPE = b"content-type"
CONTENT_ENCODING = b"content-encoding"
CONTENT_LENGTH = b"content-length"
AUTHORIZATION = b"authorization"
TRACEPARENT = b"traceparent"
ORIGIN = b"origin"
ACCESS_CONTROL_EXPOSE_HEADERS = b"access-control-expose-headers"

CONTENT_LOCATION = b"content-location"
LOCATION = b"location"
LOCATIONS = frozenset({LOCATION, CONTENT_LOCATION})
"""Headers whose values may name the inference server (``docs/wire.md`` §3.7)."""
X_ACCEL_BUFFERING = b"x-accel-buffering"
"""``no``: nginx passes on each part of a response as it comes."""

FORWARDED = b"forwarded"
X_FORWARDED_FOR = b"x-forwarded-for"
X_FORWARDED_HOST = b"x-forwarded-host"
X_FORWARDED_PREFIX = b"x-forwarded-prefix"
X_FORWARDED_PROTO = b"x-forwarded-proto"

IDEMPOTENCY_KEY = b"idempotency-key"
IDEMPOTENT_REPLAYED = b"idempotent-replayed"
"""``true``: the response is that of an earlier call with the same key."""
NVCF_CLAIM = b"nvcf-claim"
"""From one gateway process to another that holds a call: account and name of the call's claim."""
NVCF_FINGERPRINT = b"nvcf-fingerprint"
"""With it: the fingerprint of a request that repeats the call."""
NVCF_SENT_TARGET = b"nvcf-sent-target"
"""With it: the target of that request."""
NVCF_POLLED_FORM = b"nvcf-polled-form"
"""With it, if the request came over the polling routes: the form of their responses."""
CANCEL_AFTER = b"cancel-after"
"""How long a call may wait, run, and take as a whole (`docs/wire.md` §6.6)."""

FUNCTION_ID = b"function-id"
FUNCTION_VERSION_ID = b"function-version-id"

NVCF_REQID = b"nvcf-reqid"
X_REQUEST_ID = b"x-request-id"
"""The same id in responses, under the name that most SDKs show. A function may set its own."""
NVCF_STATUS = b"nvcf-status"
NVCF_POLL_SECONDS = b"nvcf-poll-seconds"
NVCF_PERCENT_COMPLETE = b"nvcf-percent-complete"
"""Of a 202: how far a polled call has come (`docs/wire.md` §24)."""
NVCF_INPUT_ASSET_REFERENCES = b"nvcf-input-asset-references"
"""Of a call: the ids of its input assets, with commas between them."""
NVCF_QUEUE_POSITION = b"nvcf-queue-position"
NVCF_WEBHOOK_URL = b"nvcf-webhook-url"
"""Who is to be told when a detached call is over (`docs/webhooks.md`)."""
NVCF_DETACH = b"nvcf-detach"
"""``on-disconnect``: the call goes on when its client leaves."""
NVCF_HOLDER_SECRET = b"nvcf-holder-secret"
"""On a request that one gateway process forwards to another: that the other one has given it."""
PREFER = b"prefer"
PREFERENCE_APPLIED = b"preference-applied"
"""RFC 7240."""
NVCF_INVOCATION_REGION = b"nvcf-invocation-region"
NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY = b"nvcf-feature-disable-worker-compatibility"
NVCF_ALLOW_RERUN = b"nvcf-allow-rerun"
"""In the envelope, ``false``: a method that is not idempotent must not be run a second time. With
``never``, no method: the request was sent to an inference server before, over a channel, or is run
once only. ``once``, which is the last header then: a worker asks before the first run too."""
ONCE = (NVCF_ALLOW_RERUN, b"once")
NVCF_POLLED = b"nvcf-polled"
"""In the envelope, ``false``: a 202 of the inference server is the response, and no worker waits
for polls (`docs/wire.md` §8.8)."""
NVCF_RUN_SECONDS = b"nvcf-run-seconds"
"""In the envelope: for how many seconds from its lease on a worker may run the request."""
NVCF_PASS_INTERIM = b"nvcf-pass-interim"
"""In the envelope, ``true``: the client is to get the inference server's interim responses too."""
NVCF_UPGRADE = b"nvcf-upgrade"
"""In the envelope, ``websocket``: the client asks for a WebSocket (`docs/wire.md` §22)."""
NVCF_UPGRADED = b"nvcf-upgraded"
"""In the inner head, ``websocket``: the inference server has agreed to it. On the attach GET: what
is fetched are the client's bytes, and not the body of a request."""
NVCF_LEASED_US = b"nvcf-leased-us"
"""On the worker's attach POST: the age of its lease in microseconds."""
NVCF_INSTANCE_ID = b"nvcf-instance-id"
"""On the same: the instance that responds."""
NVCF_FAULT = b"nvcf-fault"
"""On the same, with a problem document of the worker: what failed (`docs/wire.md` §5.3)."""

NVCF_DELIVERIES = b"nvcf-deliveries"
"""On the worker's question whether to run a request: how often it has been delivered."""
NVCF_RUNNING = b"nvcf-running"
"""On the same: the worker runs the request already."""
NVCF_LATE = b"nvcf-late"
"""In place of the question: the worker does not start the request, because it would be late."""
NVCF_BROKEN_OFF = b"nvcf-broken-off"
"""In place of the question: the inference server broke off the request, which is given back."""
NVCF_UNRUN = b"nvcf-unrun"
"""In place of the question: the worker was told to run the request, which is run once, and gives it
back without having begun."""

NVCF_CHANNEL_CALL = b"nvcf-channel-call"
"""On an attach call with the key of a channel: the number of the call (`docs/wire.md` §20)."""
NVCF_CHANNEL_KEY = b"nvcf-channel-key"
"""In the response that opens a channel: the key for its attach calls, and to open it again."""

X_RATELIMIT_LIMIT = b"x-ratelimit-limit"
X_RATELIMIT_REMAINING = b"x-ratelimit-remaining"
X_RATELIMIT_RESET = b"x-ratelimit-reset"

EXPOSED_HEADERS = (
    NVCF_REQID,
    NVCF_STATUS,
    NVCF_QUEUE_POSITION,
    X_REQUEST_ID,
    b"retry-after",
    X_RATELIMIT_LIMIT,
    X_RATELIMIT_REMAINING,
    X_RATELIMIT_RESET,
)
"""Response headers of the gateway's own that web pages may read (``docs/wire.md`` §1.4)."""

REPEATING = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"connection",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"keep-alive",
        b"nvcf-poll-seconds",
        b"te",
        b"transfer-encoding",
        b"user-agent",
        b"x-stainless-arch",
        b"x-stainless-async",
        b"x-stainless-lang",
        b"x-stainless-os",
        b"x-stainless-package-version",
        b"x-stainless-read-timeout",
        b"x-stainless-retry-count",
        b"x-stainless-runtime",
        b"x-stainless-runtime-version",
    }
)
"""Request headers that repeat often and hold no secret: what is made of one may be kept."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers of one connection, never forwarded: RFC 9110 §7.6.1 and RFC 2616 §13.5.1
(`docs/wire.md` §3.1)."""

PLATFORM = frozenset(
    {
        NVCF_REQID,
        b"nvcf-sub",
        b"nvcf-ncaid",
        b"nvcf-function-name",
        b"nvcf-function-id",
        b"nvcf-function-version-id",
        b"nvcf-asset-dir",
        b"nvcf-large-output-dir",
        b"nvcf-max-response-size-bytes",
        b"nvcf-nspectid",
        b"nvcf-backend",
        b"nvcf-instancetype",
        b"nvcf-region",
        b"nvcf-env",
        b"nvcf-function-asset-ids",
    }
)
"""Headers of the request to the inference server that only the worker sets: `docs/wire.md` §8.3."""


def misspelled(names: Collection[bytes]) -> frozenset[bytes]:
    """Return every spelling of ``names`` with an underscore in place of some or all hyphens.

    Many servers read both as the same: CGI and WSGI turn a header's name into that of a variable of
    the environment (RFC 3875 §4.1.18).
    """
    spellings: set[bytes] = set()
    for name in names:
        first, *others = name.split(b"-")
        spelled = [first]
        for other in others:
            spelled = [start + sign + other for start in spelled for sign in (b"-", b"_")]
        spellings.update(spelled)
    return frozenset(spellings.difference(names))


_SOURCE = frozenset(
    {
        FORWARDED,
        X_FORWARDED_FOR,
        X_FORWARDED_HOST,
        X_FORWARDED_PREFIX,
        X_FORWARDED_PROTO,
        b"front-end-https",
        b"true-client-ip",
        b"x-client-ip",
        b"x-forwarded-port",
        b"x-forwarded-protocol",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-real-ip",
        b"x-scheme",
        b"x-url-scheme",
    }
)
SOURCE_DROPS = _SOURCE | misspelled(_SOURCE)
"""What servers read of where a request comes from: the gateway says that itself, in the first five
(`docs/wire.md` §3.6). Most proxies pass on what a client sends of the others."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_SET_FOR_ENVELOPE = frozenset(
    {
        NVCF_INVOCATION_REGION,
        NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY,
        NVCF_ALLOW_RERUN,
        NVCF_PASS_INTERIM,
        NVCF_POLLED,
        NVCF_RUN_SECONDS,
        NVCF_UPGRADE,
    }
)
_NOT_INTERIM = _FRAMING | {CONTENT_TYPE}
_NO_TRAILERS = (
    HOP_BY_HOP
    | _FRAMING
    | {
        AUTHORIZATION,
        CONTENT_TYPE,
        NVCF_FAULT,
        NVCF_REQID,
        NVCF_STATUS,
        X_REQUEST_ID,
        b"age",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"date",
        b"expires",
        b"host",
        b"location",
        b"pragma",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"www-authenticate",
    }
)
"""What must not be sent as a trailer: it would change framing, routing, access or the response's
meaning after the fact (RFC 9110 §6.5.1)."""
_CORS = b"access-control-"


def forwardable_trailers(trailers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the trailers of a response that may be passed on."""
    return [
        trailer
        for trailer in trailers
        if trailer[0] not in _NO_TRAILERS and not trailer[0].startswith(_CORS)
    ]


def forwardable_interim(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an interim response that may be passed on.

    Not those of one connection, of a body, which it has none of, of the platform, and of CORS: what
    a page may read is said with the response.
    """
    kept = forwardable(headers, _NOT_INTERIM)
    return [header for header in kept if not header[0].startswith((b"nvcf-", _CORS))]


INVOCATION_DROPS = (
    SOURCE_DROPS
    | _SET_FOR_ENVELOPE
    | {AUTHORIZATION, b"expect"}
    | misspelled(PLATFORM | _SET_FOR_ENVELOPE | _FRAMING | {NVCF_POLL_SECONDS})
)
"""Request headers that are never put into the envelope, in addition to `HOP_BY_HOP`.

``authorization`` is the caller's credential, which the function must not see. ``expect`` is handled
by the gateway, and the inference server must not respond to it again. The ``nvcf-`` headers are set
by the gateway, which replaces a client's value. All other headers are forwarded in order,
including ``host``, which the worker drops, and ``content-length``, from which the worker takes the
length of the body. A spelling with underscores that an inference server would read as one of the
platform's headers, or as the length of the body, is dropped. So is what tells of
the client's address.
"""

_WITHOUT_NAMES = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


def forwardable(
    headers: list[tuple[bytes, bytes]], also: frozenset[bytes] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """Return the headers to forward: all but hop-by-hop, those named in Connection, and ``also``.

    Order and duplicates are kept. The result is a new list, which the caller may change.
    """
    drops = _hop_by_hop_and(also) if also else HOP_BY_HOP
    kept = []
    for header in headers:
        name = header[0]
        if name not in drops:
            kept.append(header)
        elif name == b"connection" and header[1] not in _WITHOUT_NAMES:
            return _drop_named(headers, drops)
    return kept


@lru_cache(maxsize=16)
def _hop_by_hop_and(also: frozenset[bytes]) -> frozenset[bytes]:
    return HOP_BY_HOP | also


def connection_names(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Return the options of all Connection headers, lower case (RFC 9110 §7.6.1)."""
    return {
        option.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }


def _drop_named(
    headers: list[tuple[bytes, bytes]], drops: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    drops = drops | connection_names(headers)
    return [header for header in headers if header[0] not in drops]
