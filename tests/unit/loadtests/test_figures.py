import pytest

from loadtests.figures import (
    AIOHTTP,
    BACKENDS,
    BEFORE,
    DIRECT,
    GATEWAY,
    ONLY_SYSTEMS,
    ROWS,
    SYSTEMS,
    Results,
    is_measured,
)


def test_what_a_system_adds_is_taken_within_each_round() -> None:
    results = Results()
    results.add(1, DIRECT, {"latency_p50": 20.0})
    results.add(1, GATEWAY, {"latency_p50": 120.0})
    results.add(2, DIRECT, {"latency_p50": 60.0})
    results.add(2, GATEWAY, {"latency_p50": 130.0})

    assert results.values(GATEWAY, "latency_added_p50") == [100.0, 70.0]
    assert results.values(DIRECT, "latency_added_p50") == []


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    results = Results()
    for number, (ours, theirs) in enumerate([(30.0, 10.0), (8.0, 4.0), (50.0, 10.0)], 1):
        results.add(number, GATEWAY, {"throughput": ours})
        results.add(number, AIOHTTP, {"throughput": theirs})

    assert results.ratio("throughput", GATEWAY, AIOHTTP) == 3.0


def test_a_ratio_uses_only_rounds_that_have_both() -> None:
    results = Results()
    results.add(1, GATEWAY, {"throughput": 90.0})
    results.add(2, GATEWAY, {"throughput": 20.0})
    results.add(2, AIOHTTP, {"throughput": 10.0})

    assert results.ratio("throughput", GATEWAY, AIOHTTP) == 2.0


def test_one_failed_round_leaves_a_row_without_figures() -> None:
    results = Results()
    results.add(1, GATEWAY, {"throughput": 90.0, "cpu_front": 50.0, "sse_rate": 2500.0})
    results.fail(2, GATEWAY, "throughput", "3 answers that are not 2xx")

    assert results.values(GATEWAY, "throughput") == []
    assert results.spread(GATEWAY, "cpu_front") is None
    assert results.values(GATEWAY, "sse_rate") == [2500.0]


@pytest.mark.parametrize("key", ["latency_added_p50", "latency_p5"])
def test_only_measured_figures_can_be_entered(key: str) -> None:
    with pytest.raises(KeyError, match=key):
        Results().add(1, DIRECT, {key: 1.0})


def test_a_row_about_slots_is_measured_for_gateways_alone() -> None:
    gateways = [BEFORE, GATEWAY, *BACKENDS]
    assert [system for system in SYSTEMS if is_measured("queued", system)] == gateways
    assert all(is_measured("latency", system) for system in SYSTEMS)


@pytest.mark.parametrize("system", BACKENDS)
def test_a_backend_is_measured_where_the_queue_matters(system: str) -> None:
    assert [row for row in ROWS if is_measured(row, system)] == ["latency", "throughput", "queued"]


def test_only_rows_of_the_table_are_restricted() -> None:
    assert ONLY_SYSTEMS.keys() <= ROWS.keys()
