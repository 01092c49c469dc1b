import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.sealing import Sealer, SealError

SEALER = Sealer(bytes(32))
NONCE = bytes(12)


@given(st.binary(max_size=200), st.text(max_size=50))
def test_what_was_sealed_opens_where_it_belongs(text: bytes, place: str) -> None:
    sealed = SEALER.seal(text, place, NONCE)
    assert SEALER.open(sealed, place) == text
    assert len(text) < 8 or text not in sealed


@given(st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    sealed = SEALER.seal(b"hunter2", "here", NONCE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = sealed[:at] + bytes([sealed[at] ^ flip]) + sealed[at + 1 :]
    with pytest.raises(SealError):
        SEALER.open(changed, "here")
    with pytest.raises(SealError):
        SEALER.open(sealed[:at], "here")


def test_another_key_and_another_place_open_nothing() -> None:
    sealed = SEALER.seal(b"hunter2", "here", NONCE)
    with pytest.raises(SealError) as failure:
        SEALER.open(sealed, "there")
    assert "hunter2" not in str(failure.value)
    with pytest.raises(SealError):
        Sealer(bytes(range(32))).open(sealed, "here")
