import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.model import (
    EVERYTHING,
    Account,
    ApiKey,
    FunctionVersion,
    Record,
    RecordError,
    ResourceScope,
    VersionState,
    decode,
    encode,
    resource_scope_of,
    resources_of,
)
from tests.support.records import RECORDS, TEXTS
from wire.ids import FunctionId, VersionId

KEY = ApiKey("id", bytes(32), "account", "subject", frozenset({"invoke_function"}))


@given(RECORDS)
def test_a_record_is_read_back_as_it_was_written(
    record: Record,
) -> None:
    assert decode(encode(record)) == record


@given(st.binary(max_size=64) | st.recursive(st.none() | TEXTS, st.lists).map(json.dumps))
def test_whatever_is_no_record_is_refused_and_nothing_else_happens(data: bytes | str) -> None:
    with pytest.raises(RecordError):
        decode(data if isinstance(data, bytes) else data.encode())


@given(
    RECORDS,
    st.sampled_from([None, 7, -1.5, "x", [], {}, [1], True]),
    st.data(),
)
def test_a_member_of_another_type_never_gets_past_the_codec_as_another_error(
    record: Record, wrong: object, data: st.DataObject
) -> None:
    document = json.loads(encode(record))
    document[data.draw(st.sampled_from(sorted(document)))] = wrong
    try:
        decoded = decode(json.dumps(document).encode())
    except RecordError:
        return
    assert type(decoded) is type(record)


def test_a_record_of_a_later_schema_is_refused_by_its_number() -> None:
    document = json.loads(encode(KEY))
    document["schema"] = 2
    with pytest.raises(RecordError, match="schema is 2, this program reads 1"):
        decode(json.dumps(document).encode())


def test_a_missing_member_is_named() -> None:
    document = json.loads(encode(KEY))
    del document["scopes"]
    with pytest.raises(RecordError, match="scopes"):
        decode(json.dumps(document).encode())


def test_a_version_of_an_earlier_release_allows_reruns_and_passes_no_interim_response() -> None:
    version = FunctionVersion(
        FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff"),
        VersionId("11111111-1111-4111-8111-111111111111"),
        "account",
        "name",
        VersionState.ACTIVE,
    )
    document = json.loads(encode(version))
    del document["allows_rerun"], document["passes_interim"]
    assert decode(json.dumps(document).encode()) == version


def test_members_of_a_later_release_are_ignored() -> None:
    document = json.loads(encode(KEY))
    document["colour"] = "green"
    assert decode(json.dumps(document).encode()) == KEY


def test_a_key_is_never_stored_in_clear() -> None:
    assert "digest" in json.loads(encode(KEY))
    assert "nvapi" not in encode(KEY).decode()


def test_resources_have_the_form_that_the_api_speaks() -> None:
    assert resources_of(EVERYTHING) == [
        {"type": "account-functions", "id": "*"},
        {"type": "authorized-functions", "id": "*"},
    ]


@pytest.mark.parametrize(
    "resource",
    [
        {"type": "account-functions", "id": "x"},
        {"type": "authorized-functions"},
        {"type": "function", "id": "*"},
        {"type": "function", "id": "not-a-uuid/*"},
        {"type": "function", "id": "6f9619ff-8b86-d011-b42d-00c04fc964ff"},
        {"type": "function", "id": "6f9619ff-8b86-d011-b42d-00c04fc964ff/"},
        {"type": "function", "id": "6f9619ff-8b86-d011-b42d-00c04fc964ff/**"},
        {"type": "everything", "id": "*"},
        {},
    ],
)
def test_a_malformed_resource_grants_nothing(resource: dict[str, str]) -> None:
    assert resource_scope_of([resource]) == ResourceScope()


def test_an_account_of_an_earlier_release_may_have_telemetries() -> None:
    """Its limits were only kept, and 0 unless somebody had set them."""
    document = json.loads(encode(Account("acme", "Acme")))
    document["max_telemetries"] = document["max_registry_credentials"] = 0
    assert decode(json.dumps(document).encode()) == Account("acme", "Acme")
    assert Account("acme", "Acme").max_telemetries == 25
