"""Who is admitted, to what, and how long they wait."""

import pytest

from gateway.auth.keys import digest_of
from gateway.domain.model import VersionState
from gateway.errors import BadRequest, Unauthenticated
from gateway.routing.admission import Caller, poll_seconds
from gateway.routing.call_head import CallHead
from tests.unit.gateway.routing.admissions import SECRET, F, admitting, head, version


def test_an_admission_says_what_is_invoked_for_whom_and_how_long_they_wait() -> None:
    active = version("a", VersionState.ACTIVE)
    key = digest_of(SECRET.encode())
    assert admitting(active).admit(head(), 0.0) == Caller(
        active, "own", "sub", 60, key, "id", is_key=True
    )
    caller = admitting(active).admit(head("a", b"5"), 0.0)
    assert caller == Caller(active, "own", "sub", 5, key, "id", is_key=True)


def test_a_bad_poll_header_is_told_only_to_callers_that_are_known() -> None:
    admission = admitting(version("a", VersionState.ACTIVE))
    with pytest.raises(Unauthenticated):
        admission.admit(CallHead(F, None, None, b"x"), 0.0)
    with pytest.raises(BadRequest):
        admission.admit(head(None, b"x"), 0.0)


def test_an_api_key_is_no_credential_in_a_url() -> None:
    linked = head()._replace(is_linked=True)
    with pytest.raises(Unauthenticated):
        admitting(version("a", VersionState.ACTIVE)).admit(linked, 0.0)


@pytest.mark.parametrize(("value", "seconds"), [(b"0", 1), (b"1", 1), (b"007", 7), (b"3600", 3600)])
def test_poll_seconds_are_whole_seconds_and_at_least_one(value: bytes, seconds: int) -> None:
    assert poll_seconds(value) == seconds


@pytest.mark.parametrize(
    "value",
    [b"", b"3601", b"-1", b"+5", b"1.5", b"5s", b"0x10", b" 5", b"1_0", b"9" * 5000, b"\xb2"],
)
def test_anything_else_is_a_bad_request(value: bytes) -> None:
    with pytest.raises(BadRequest):
        poll_seconds(value)
