"""Commands in RESP, and the slots of keys."""

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueing.redis.commands import bulk, encode, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"123456789", 0x31C3), (b"foo", 12182), (b"bar", 5061), (b"hello", 866), (b"", 0)],
)
def test_slots_are_those_of_the_cluster_specification(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"{user1000}.following", b"user1000"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"foo{bar}{zap}", b"bar"),
    ],
)
def test_only_what_is_in_the_first_braces_counts(key: bytes, hashed: bytes) -> None:
    assert slot_of(key) == slot_of(hashed)


@pytest.mark.parametrize("key", [b"foo{}{bar}", b"foo{bar", b"foo}bar"])
def test_a_key_without_a_tag_counts_as_a_whole(key: bytes) -> None:
    assert slot_of(key) == slot_of(b"{" + key + b"}" if b"}" not in key else key)
    assert slot_of(key) != slot_of(b"bar")


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_any_words_arrive_as_they_are(words: list[bytes]) -> None:
    reader = hiredis.Reader()
    reader.feed(encode(*words))
    assert reader.gets() == words
    assert encode(*words) == b"*%d\r\n" % len(words) + b"".join(map(bulk, words))
