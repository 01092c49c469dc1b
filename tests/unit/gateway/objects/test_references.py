"""The header that names a call's assets."""

import pytest

from gateway.errors import BadRequest
from gateway.objects.references import MAX_REFERENCES, parse_references
from runtime.ids import new_uuid

ONE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
TWO = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (b"", ()),
        (b"  ", ()),
        (ONE.encode(), (ONE,)),
        (f"{ONE}, {TWO.upper()}".encode(), (ONE, TWO)),
        (f"{ONE},{ONE}".encode(), (ONE,)),
    ],
)
def test_uuids_separated_by_commas(value: bytes, ids: tuple[str, ...]) -> None:
    assert parse_references(value) == ids


@pytest.mark.parametrize("value", [b"x", b"\xff", f"{ONE},".encode(), f"{ONE} {TWO}".encode()])
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="UUIDs"):
        parse_references(value)


def test_their_number_is_bounded() -> None:
    ids = [new_uuid() for _ in range(MAX_REFERENCES + 1)]
    assert len(parse_references(",".join(ids[:-1]).encode())) == MAX_REFERENCES
    with pytest.raises(BadRequest, match="more than"):
        parse_references(",".join(ids).encode())
