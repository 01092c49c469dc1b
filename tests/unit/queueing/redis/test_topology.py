"""The masters of a cluster, read from what a node says."""

import pytest

from queueing.redis.errors import NotConnected
from queueing.redis.topology import read_slots
from queueing.servers import Server

ASKED = Server("node", 6379, tls=True, user="u", password="p")


def test_each_master_has_its_ranges_and_replicas_have_none() -> None:
    one, two = [b"10.0.0.1", 7000, b"id1"], [b"10.0.0.2", 7001, b"id2", {b"hostname": b"h"}]
    replica = [b"10.0.0.3", 7002, b"id3", {}]
    found = read_slots(ASKED, [[0, 99, one, replica], [100, 16382, two], [16383, 16383, one]])
    assert found == {
        ASKED._replace(host="10.0.0.1", port=7000): [(0, 99), (16383, 16383)],
        ASKED._replace(host="10.0.0.2", port=7001): [(100, 16382)],
    }


@pytest.mark.parametrize("host", [b"", None, b"?"])
def test_a_node_that_does_not_know_its_address_is_where_we_asked(host: bytes | None) -> None:
    found = read_slots(ASKED, [[0, 16383, [host, 7000, b"id"]]])
    assert list(found) == [ASKED._replace(port=7000)]


def test_a_cluster_without_slots_is_of_no_use() -> None:
    with pytest.raises(NotConnected):
        read_slots(ASKED, [])
