"""What is seen of NVIDIA's workers, and what follows."""

from gateway.domain.nvcf_health import STALLED_S, QueueWatch, instance_name, share_of


def test_a_queue_of_which_nobody_takes_requests_is_noticed_and_its_end_too() -> None:
    watch = QueueWatch()
    assert watch.is_served(waiting=0, leased=0, now=0.0)
    assert watch.is_served(waiting=3, leased=0, now=100.0)
    assert watch.is_served(waiting=3, leased=0, now=100.0 + STALLED_S - 1)
    assert not watch.is_served(waiting=3, leased=0, now=100.0 + STALLED_S)
    assert watch.is_served(waiting=3, leased=1, now=200.0)
    assert watch.is_served(waiting=3, leased=0, now=200.0 + STALLED_S)


def test_connections_of_other_versions_and_programs_are_no_instances() -> None:
    names = ["worker_v1_pod_7", "worker_v1_a", "worker_v2_b", "gateway-data", ""]
    assert [instance_name("v1", name) for name in names] == ["pod_7", "a", "", "", ""]


def test_leased_requests_are_shared_among_the_workers() -> None:
    assert share_of(leased=0, workers=2, slots=4) == 0
    assert share_of(leased=3, workers=2, slots=4) == 2
    assert share_of(leased=100, workers=2, slots=4) == 4
    assert share_of(leased=1, workers=0, slots=4) == 0
