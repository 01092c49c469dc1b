import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.paging import decode_cursor, encode_cursor
from gateway.domain.catalog import Cursor, Visibility
from gateway.domain.lifecycle import timestamp
from gateway.errors import BadRequest


@given(st.sampled_from(Visibility), st.floats(0, 4e9), st.uuids(), st.uuids())
def test_a_cursor_leads_back_to_where_it_was_made(
    visibility: Visibility, at: float, version: object, function: object
) -> None:
    place = Cursor(timestamp(at), str(version), str(function))
    assert decode_cursor(encode_cursor(visibility, place)) == (visibility, place)


@given(st.text(max_size=60))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        decode_cursor(text)
