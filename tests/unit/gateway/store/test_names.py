import re

import pytest
from hypothesis import given

from gateway.domain.model import Record, RecordError, encode
from gateway.store.names import BUCKETS, SECRETS, key_at, location_of, record_at
from tests.support.records import RECORDS

KV_NAME = re.compile(r"[-/_=.a-zA-Z0-9]+").fullmatch


@given(RECORDS)
def test_every_record_is_found_again_where_it_was_put(record: Record) -> None:
    """Key ids are made by us; every other id may be any text that an account chose."""
    bucket, name = location_of(record.key)
    assert bucket in BUCKETS
    assert record_at(bucket, name, encode(record)) == record
    if not hasattr(record, "key_id"):
        assert KV_NAME(name)
        assert location_of(key_at(bucket, name)) == (bucket, name)


@pytest.mark.parametrize("name", ["", "function", "version.f", "instance.v.=zz", "account.=ff"])
def test_a_name_that_nobody_here_writes_is_refused(name: str) -> None:
    with pytest.raises(RecordError):
        key_at(SECRETS, name)
