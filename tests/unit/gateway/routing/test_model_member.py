import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.routing.model_member import (
    MAX_BYTES,
    MAX_MEMBERS,
    MAX_MODEL_BYTES,
    MAX_NESTED,
    Member,
    ModelMember,
)

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, width=32) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def search(body: bytes, step: int = 1 << 20) -> Member:
    model = ModelMember()
    for at in range(0, len(body), step):
        if model.add(body[at : at + step]):
            break
    else:
        model.end()
    assert model.found is not None
    return model.found


@given(
    before=st.dictionaries(st.text().filter(lambda key: key != "model"), VALUES, max_size=4),
    text=st.text(max_size=40),
    step=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    is_ascii=st.booleans(),
)
def test_it_is_found_wherever_the_bytes_are_cut(
    before: dict[str, Any], text: str, step: int, indent: int | None, is_ascii: bool
) -> None:
    whole = {**before, "model": text, "after": [1]}
    body = json.dumps(whole, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "replace")
    expected = json.loads(body)["model"]
    found = search(body, step)
    assert found.text == expected
    assert json.loads(body[found.start : found.end]) == expected


def test_only_the_members_of_the_object_itself_count() -> None:
    body = b'{"x":{"model":"inner"},"y":[{"model":"inner"}],"z":"\\"model\\":","model":"outer"}'
    assert search(body).text == "outer"


def test_a_key_that_is_written_with_escapes_is_the_same_key() -> None:
    assert search(rb'{"m\u006fdel" : "a\u00e9"}').text == "aé"


def test_nothing_is_read_beyond_it() -> None:
    assert search(b'{"model":"a", this is not JSON').text == "a"


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"[]",
        b"{",
        b"{}",
        b'{"a":1}',
        b'{"model":1}',
        b'{"model":null}',
        b'{"model":["x"]}',
        b'{"model":"x',
        b'{"model" "x"}',
        b'{"a":1 "model":"x"}',
        b'{"a":,"model":"x"}',
        b'{a:1,"model":"x"}',
        b'{"model":"\\ud"}',
        b'{"model":"\xff"}',
        b"nonsense",
    ],
)
def test_what_names_no_model_is_refused(body: bytes, step: int) -> None:
    with pytest.raises(BadRequest):
        search(body, step)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"x" * MAX_BYTES,
        b'{"a":' + b"[" * (MAX_NESTED + 2),
        b"{" + b'"a":1,' * (MAX_MEMBERS + 1),
        b'{"model":"' + b"x" * MAX_MODEL_BYTES + b'"}',
    ],
    ids=["bytes", "brackets", "members", "length"],
)
def test_the_search_is_bounded(body: bytes) -> None:
    model = ModelMember()
    with pytest.raises(BadRequest, match="model"):
        model.add(body)
