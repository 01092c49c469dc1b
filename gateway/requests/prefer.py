"""What a request's headers ask for: to outlive its connection, or not (RFC 7240)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from gateway.errors import BadRequest
from http1.stream import Headers, Request
from wire.deadlines import MAX_POLL_S
from wire.headers import NVCF_DETACH, NVCF_POLL_SECONDS, NVCF_WEBHOOK_URL, PREFER

ON_DISCONNECT = b"on-disconnect"
RESPOND_ASYNC = b"respond-async"
_WAIT = b"wait"

_is_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_QUOTED = rb'"(?:[^"\\]|\\.)*"'
_items = re.compile(rb'((?:[^",]|' + _QUOTED + rb")+)").findall
_parameters = re.compile(rb'((?:[^";]|' + _QUOTED + rb")+)").findall


class Terms(NamedTuple):
    """How a call is detached.

    ``is_async``: its client gets 202 once its request is complete, unless the response head comes
    within ``wait_s``. Otherwise the call is attached, and goes on when its client leaves.
    ``webhook`` is the URL that is told when the call is over, not checked yet; empty: none.
    """

    is_async: bool = False
    wait_s: int = 0
    webhook: bytes = b""


def preferences(values: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the preferences in the values of all ``Prefer`` headers, names in lower case.

    The first of several of the same name counts (RFC 7240 §2); parameters of a preference are left
    out, and so is what is not one: it is to be ignored.
    """
    found: dict[bytes, bytes] = {}
    for value in values:
        for item in _items(value):
            preference = _parameters(item)
            if not preference:
                continue
            name, _, text = preference[0].partition(b"=")
            name = name.strip(b" \t").lower()
            if _is_token(name):
                found.setdefault(name, _unquoted(text.strip(b" \t")))
    return found


def terms_of(request: Request) -> Terms | None:
    """Return how a call is to be detached, `None` if it is not.

    Raises `BadRequest` for a value of ``NVCF-DETACH`` that is not known, and for a webhook of a
    call whose client waits for the response.
    """
    terms = _wanted_terms(request)
    webhook = request.values.get(NVCF_WEBHOOK_URL)
    if webhook is None:
        return terms
    if terms is None or not terms.is_async:
        raise BadRequest(
            "NVCF-Webhook-URL is for calls that get 202 at once: send Prefer: respond-async too"
        )
    if [name for name, _ in request.headers].count(NVCF_WEBHOOK_URL) > 1:
        raise BadRequest("The header nvcf-webhook-url appears more than once")
    return terms._replace(webhook=webhook)


def _wanted_terms(request: Request) -> Terms | None:
    detach = request.values.get(NVCF_DETACH)
    if detach is not None and detach.strip(b" \t").lower() != ON_DISCONNECT:
        raise BadRequest("NVCF-DETACH has one value: on-disconnect")
    if PREFER in request.values:
        wanted = preferences(value for name, value in request.headers if name == PREFER)
        if RESPOND_ASYNC in wanted:
            return Terms(is_async=True, wait_s=_seconds(wanted.get(_WAIT, b"")))
    return None if detach is None else Terms()


def detached_headers(headers: Headers, terms: Terms, window_s: int) -> Headers:
    """Return the headers of a detached call for the function.

    Those that were acted on are left out, and the poll window is that of the call: no client waits
    for it. Other preferences are the function's.
    """
    kept: Headers = []
    for name, value in headers:
        if name == PREFER and terms.is_async:
            others = [item for item in _items(value) if not _is_acted_on(item)]
            if others:
                kept.append((name, b",".join(others).strip(b" \t")))
        elif name not in (NVCF_DETACH, NVCF_POLL_SECONDS, NVCF_WEBHOOK_URL):
            kept.append((name, value))
    kept.append((NVCF_POLL_SECONDS, b"%d" % window_s))
    return kept


def _is_acted_on(item: bytes) -> bool:
    name = item.partition(b";")[0].partition(b"=")[0].strip(b" \t").lower()
    return name in (RESPOND_ASYNC, _WAIT)


def _unquoted(text: bytes) -> bytes:
    if len(text) >= 2 and text.startswith(b'"') and text.endswith(b'"'):
        return re.sub(rb"\\(.)", rb"\1", text[1:-1])
    return text


def _seconds(text: bytes) -> int:
    """Return the seconds of ``wait``, 0 if it has no such value: a preference is never an error."""
    if not text.isdigit() or len(text) > 9:
        return 0
    return min(int(text), MAX_POLL_S)
