import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.sealing import SealError, SecretBox

BOX = SecretBox(bytes(32))
NONCE = bytes(12)


@given(st.binary(max_size=200), st.text(max_size=50))
def test_what_was_sealed_opens_where_it_belongs(text: bytes, context: str) -> None:
    sealed = BOX.seal(text, context, NONCE)
    assert BOX.open(sealed, context) == text
    assert len(text) < 8 or text not in sealed


@given(st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    sealed = BOX.seal(b"hunter2", "here", NONCE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = sealed[:at] + bytes([sealed[at] ^ flip]) + sealed[at + 1 :]
    with pytest.raises(SealError):
        BOX.open(changed, "here")
    with pytest.raises(SealError):
        BOX.open(sealed[:at], "here")


def test_another_key_and_another_place_open_nothing() -> None:
    sealed = BOX.seal(b"hunter2", "here", NONCE)
    with pytest.raises(SealError) as failure:
        BOX.open(sealed, "there")
    assert "hunter2" not in str(failure.value)
    with pytest.raises(SealError):
        SecretBox(bytes(range(32))).open(sealed, "here")
