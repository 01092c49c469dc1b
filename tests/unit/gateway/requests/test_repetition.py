"""How one process asks another for the response of a call that is repeated."""

import pytest

from gateway.requests.exec_writer import PolledForm
from gateway.requests.idempotency import ClaimPosition
from gateway.requests.prefer import Terms
from gateway.requests.repetition import Repetition, forwarded_request, repetition_of
from http1.stream import Headers, Request

FIRST_ID = "33333333-3333-4333-8333-333333330007"
PREFERS: Headers = [(b"prefer", b"respond-async, wait=3")]


@pytest.mark.parametrize("form", [None, *PolledForm])
def test_the_holder_learns_what_the_client_wants(form: PolledForm | None) -> None:
    request = Request(b"POST", b"/v1", b"a", PREFERS, 3, 0.0)
    # Over the polling routes the preference is the function's.
    terms = Terms(is_async=True, wait_s=3) if form is None else Terms()
    position = ClaimPosition("an account", "name")
    asked = Repetition(FIRST_ID, position, "f00d", terms, 7, None, form)
    forwarded = forwarded_request(asked, request)
    assert repetition_of(forwarded) == asked
    assert forwarded.values[b"nvcf-sent-target"] == b"/v1"
