import gzip
import json
import re
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from gateway.api.limits import MAX_BODY_BYTES
from gateway.api.parsing import decompress, parse_body, read_path, read_query
from gateway.api.schemas.deployments import Deploy, UndeployQuery
from gateway.api.schemas.functions import CreateFunction, IdsQuery, ListQuery, UpdateMetadata
from gateway.api.schemas.tokens import UpdateSecrets
from gateway.errors import BadRequest, BodyTooLarge
from tests.support.deployments import HEALTH

F = "6F9619FF-8b86-4011-b42d-00c04fc964ff"
FUNCTION = {"name": "a", "inferenceUrl": "/", "containerImage": "i"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "models", "secrets", "health", "value", "gpu", "deploymentSpecifications"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_a_body_or_a_bad_request(data: bytes) -> None:
    for model in (CreateFunction, Deploy):
        with suppress(BadRequest):
            assert isinstance(parse_body(data, model), model)


def test_a_mistake_is_told_by_its_place_and_its_rule() -> None:
    body = {"deploymentSpecifications": [{"gpu": "x", "minInstances": 1, "maxInstances": 0}]}
    with pytest.raises(BadRequest) as refused:
        parse_body(json.dumps(body).encode(), Deploy)
    assert "field=deploymentSpecifications.0.maxInstances" in refused.value.detail
    assert "greater than or equal to 1" in refused.value.detail


def test_error_and_specification_name_all_that_put_of_a_version_can_change() -> None:
    with pytest.raises(BadRequest) as refused:
        parse_body(b"{}", UpdateMetadata)
    specification = (Path(__file__).parents[4] / "docs" / "wire.md").read_text()
    section = re.search(r"^### 10\.3 .*?(?=^### )", specification, re.MULTILINE | re.DOTALL)
    assert section is not None
    for field in UpdateMetadata.model_fields.values():
        assert re.search(rf"\b{field.alias}\b", refused.value.detail)
        assert f"`{field.alias}`" in section[0]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("cors", {"orgins": ["*"], "origins": []}),
        ("cors", {"Origins": [], "origins": []}),
        ("rateLimit", {"rateLimit": "5-S", "synccheck": True}),
    ],
)
def test_an_unknown_member_of_a_rule_is_refused_by_name(
    member: str, value: dict[str, object]
) -> None:
    body = {**FUNCTION, "unknown": 1, "health": {**HEALTH, "unknown": 1}}
    parse_body(json.dumps(body).encode(), CreateFunction)
    with pytest.raises(BadRequest) as refused:
        parse_body(json.dumps({**body, member: value}).encode(), CreateFunction)
    name = next(iter(value)) if member == "cors" else "synccheck"
    assert refused.value.detail.endswith(f"[field={member}, message=there is no member {name}]")


def test_of_many_unknown_members_a_few_are_named() -> None:
    cors = {f"{n}{'x' * 1000}": n for n in range(15_000)}
    with pytest.raises(BadRequest) as refused:
        parse_body(json.dumps({**FUNCTION, "cors": cors}).encode(), CreateFunction)
    assert len(refused.value.detail) < 1000


def test_a_whole_number_may_be_written_with_a_point() -> None:
    spec = b'{"deploymentSpecifications":[{"gpu":"x","minInstances":1.0,"maxInstances":%s}]}'
    (read,) = parse_body(spec % b"2e0", Deploy).deployment_specifications
    assert (read.min_instances, read.max_instances) == (1, 2)
    for wrong in (b"2.5", b'"2"', b"true", b"1e999"):
        with pytest.raises(BadRequest):
            parse_body(spec % wrong, Deploy)


@pytest.mark.parametrize(
    ("number", "fits"), [(2**64 - 1, True), (2**64, False), (-(2**63) - 1, False)]
)
def test_a_number_that_would_not_be_stored_as_it_is_is_refused(number: int, fits: bool) -> None:
    data = b'{"secrets":[{"name":"one","value":{"n":[%d]}}]}' % number
    if fits:
        assert parse_body(data, UpdateSecrets).secrets[0].value == {"n": [number]}
    else:
        with pytest.raises(BadRequest, match="64 bits"):
            parse_body(data, UpdateSecrets)


def test_visibility_is_taken_repeated_with_commas_and_in_any_case() -> None:
    for query in (
        MultiDict([("visibility", "private"), ("visibility", "Public")]),
        MultiDict([("visibility", "PRIVATE, public,")]),
    ):
        assert read_query(query, IdsQuery).visibility == ["private", "public"]
    assert read_query(MultiDict([("unknown", "x")]), ListQuery) == ListQuery()


@pytest.mark.parametrize("value", ["yes", "1", "", "tru", "truetrue"])
def test_a_flag_is_true_or_false(value: str) -> None:
    with pytest.raises(BadRequest):
        read_query(MultiDict([("graceful", value)]), UndeployQuery)
    assert read_query(MultiDict([("graceful", "True")]), UndeployQuery).graceful


def test_a_parameter_that_says_two_things_is_refused() -> None:
    with pytest.raises(BadRequest, match="more than once"):
        read_query(MultiDict([("graceful", "true"), ("graceful", "false")]), UndeployQuery)


def test_ids_in_the_path_are_made_canonical_or_refused() -> None:
    assert read_path({"functionId": F, "ncaId": "Any One"}) == {
        "functionId": F.lower(),
        "ncaId": "Any One",
    }
    for wrong in ("x", F[:-1], f"{F} ", "é" * 36):
        with pytest.raises(BadRequest, match="functionId in the path is not a UUID"):
            read_path({"functionId": wrong})


def test_a_coding_is_undone_within_the_bounds_of_a_body() -> None:
    text = b"x" * MAX_BODY_BYTES
    assert decompress(gzip.compress(text), "gzip") == text
    assert decompress(zlib.compress(text), "deflate") == text
    with pytest.raises(BodyTooLarge):
        decompress(gzip.compress(text + b"x"), "gzip")
    whole = gzip.compress(b"{}")
    for wrong in (b"", b"{}", whole[:-1], whole + b"{}", zlib.compress(b"{}")):
        with pytest.raises(BadRequest):
            decompress(wrong, "gzip")
