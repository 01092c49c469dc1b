"""What a client that repeats a call wants, and how one process asks another for it. Pure."""

from typing import NamedTuple

from gateway.errors import NotFound
from gateway.requests.exec_writer import PolledForm
from gateway.requests.idempotency import ClaimPosition
from gateway.requests.prefer import Terms, terms_of
from gateway.routing.call_head import poll_seconds
from gateway.routing.cross_origin import PageAccess
from http1.stream import Headers, Request, ResponseWriter
from wire.deadlines import DEFAULT_POLL_S
from wire.headers import (
    IDEMPOTENT_REPLAYED,
    NVCF_CLAIM,
    NVCF_FINGERPRINT,
    NVCF_POLL_SECONDS,
    NVCF_POLLED_FORM,
    NVCF_SENT_TARGET,
    PREFER,
)
from wire.ids import parse_uuid

REPETITIONS_PATH = b"/v2/repetitions/"
"""Paths at a process's attach listener, for other processes only."""
_FORMS = {form.value: form for form in PolledForm}
"""By the values of ``nvcf-polled-form``."""


class Repetition(NamedTuple):
    """A complete request that repeats the call ``first_id``, which has the claim at ``position``.

    ``poll_s`` is how long its client waits for a response head, ``access`` what the response gets
    for web pages. ``form`` is that of its response if it came over the polling routes: then it gets
    what a poll gets, and ``terms`` do not count.
    """

    first_id: str
    position: ClaimPosition
    fingerprint: str
    terms: Terms
    poll_s: int
    access: PageAccess | None
    form: PolledForm | None = None


def forwarded_request(asked: Repetition, request: Request) -> Request:
    """Return the request to the holder of the first call; ``request`` is the client's."""
    account, name = asked.position
    headers: Headers = [
        (NVCF_CLAIM, account.encode().hex().encode() + b"." + name.encode()),
        (NVCF_FINGERPRINT, asked.fingerprint.encode()),
        (NVCF_POLL_SECONDS, b"%d" % asked.poll_s),
        (NVCF_SENT_TARGET, request.target),
    ]
    if asked.form is None:
        headers += [(name, value) for name, value in request.headers if name == PREFER]
    else:
        headers.append((NVCF_POLLED_FORM, asked.form.value))
    return Request(
        b"HEAD" if request.method == b"HEAD" else b"GET",
        REPETITIONS_PATH + asked.first_id.encode(),
        b"",
        headers,
        0,
        request.received_at,
        peer=request.peer,
    )


def repetition_of(request: Request) -> Repetition:
    """Return what another process has forwarded. Raises `NotFound`."""
    get = request.values.get
    first_id = parse_uuid(request.target.removeprefix(REPETITIONS_PATH))
    account, _, name = get(NVCF_CLAIM, b"").decode("latin-1").partition(".")
    fingerprint = get(NVCF_FINGERPRINT, b"").decode("latin-1")
    if first_id is None or not name or not fingerprint:
        raise NotFound
    poll = get(NVCF_POLL_SECONDS)
    return Repetition(
        first_id,
        ClaimPosition(bytes.fromhex(account).decode(), name),
        fingerprint,
        terms_of(request) or Terms(),
        DEFAULT_POLL_S if poll is None else poll_seconds(poll),
        None,
        _FORMS.get(get(NVCF_POLLED_FORM, b"")),
    )


class PageWriter:
    """A client's response writer for what the holder sends: web pages may read it.

    Has of a `http1.stream.ResponseWriter` what a forwarded response needs.
    """

    def __init__(self, client: ResponseWriter, access: PageAccess) -> None:
        self._client = client
        self._access = access
        self.send_interim = client.send_interim
        self.send_whole = client.send_whole
        self.send_data = client.send_data
        self.send_chunk = client.send_chunk
        self.add_trailers = client.add_trailers
        self.send_end = client.send_end
        self.abort = client.abort
        self.open_tunnel = client.open_tunnel
        self.hand_over = client.hand_over
        self.pass_chunks = client.pass_chunks
        self.pause_reading = client.pause_reading
        self.resume_reading = client.resume_reading
        self.is_writing_paused = client.is_writing_paused

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the head; one that is no repetition is the gateway's own."""
        if any(name == IDEMPOTENT_REPLAYED for name, _ in headers):
            headers = self._access.of_forwarded(status, headers)
        else:
            headers = self._access.of_own_response(headers)
        self._client.send_head(status, headers, body_bytes)
