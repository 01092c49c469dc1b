import orjson
import pytest

from gateway.auth.bootstrap import NAME, BootstrapCheck, document, new_secret
from gateway.domain.model import RecordError, ResourceScope
from gateway.errors import Unauthenticated

SECRET = new_secret(bytes(32))
STORED = orjson.dumps(document(SECRET, "2026-01-01T00:00:00Z"))


def test_the_secret_is_good_for_minting_and_nothing_else() -> None:
    check = BootstrapCheck()
    check.apply(NAME, STORED)
    principal = check.principal_of(SECRET.encode())
    assert principal.scopes == {"bootstrap"}
    assert principal.reach == ResourceScope()
    assert principal.account == ""


def test_another_secret_a_replaced_one_and_none_at_all_are_refused() -> None:
    check = BootstrapCheck()
    other = new_secret(bytes(range(32)))
    with pytest.raises(Unauthenticated):
        check.principal_of(SECRET.encode())
    check.apply(NAME, STORED)
    with pytest.raises(Unauthenticated):
        check.principal_of(other.encode())
    check.apply(NAME, orjson.dumps(document(other, "2026-01-01T00:00:00Z")))
    with pytest.raises(Unauthenticated):
        check.principal_of(SECRET.encode())
    check.apply(NAME, None)
    with pytest.raises(Unauthenticated):
        check.principal_of(other.encode())


@pytest.mark.parametrize("data", [b"{}", b"", b'{"schema":1,"digest":"xyz"}', b'{"schema":1}'])
def test_a_digest_that_cannot_be_read_lets_nobody_in(data: bytes) -> None:
    check = BootstrapCheck()
    check.apply(NAME, STORED)
    with pytest.raises(RecordError):
        check.apply(NAME, data)
    with pytest.raises(Unauthenticated):
        check.principal_of(SECRET.encode())


def test_the_secret_is_not_in_what_is_stored() -> None:
    assert SECRET.encode() not in STORED
    assert SECRET.removeprefix("nvboot-").encode() not in STORED
