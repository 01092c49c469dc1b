import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.ids import parse_uuid, process_of, request_id, uuid4_text

random16 = st.binary(min_size=16, max_size=16)


def test_a_uuid_in_any_case_becomes_canonical() -> None:
    text = b"3FA85F64-5717-4562-B3FC-2c963f66afa6"
    assert parse_uuid(text) == "3fa85f64-5717-4562-b3fc-2c963f66afa6"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"3fa85f64-5717-4562-b3fc-2c963f66afa",
        b"3fa85f64-5717-4562-b3fc-2c963f66afa67",
        b"3fa85f64-5717-4562-b3fc-2c963f66afa6\n",
        b"3fa85f6405717-4562-b3fc-2c963f66afa6",
        b"3ga85f64-5717-4562-b3fc-2c963f66afa6",
        b"{3fa85f64-5717-4562-b3fc-2c963f66af}",
    ],
)
def test_anything_else_is_no_uuid(text: bytes) -> None:
    assert parse_uuid(text) is None


@given(random16)
def test_random_bytes_make_a_version_4_uuid(seed: bytes) -> None:
    assert uuid4_text(seed) == str(uuid.UUID(bytes=seed, version=4))


@given(random16, st.integers(0, 65535))
def test_a_request_id_is_a_version_4_uuid_that_names_its_process(seed: bytes, process: int) -> None:
    made = request_id(seed, process)
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 4, uuid.RFC_4122)
    assert made[:-4] == uuid4_text(seed)[:-4]
    assert process_of(made) == process
