import pytest

from loadtests.bars import AGAINST, BARS, REDIS, BarOutcome, judge
from loadtests.figures import (
    AIOHTTP,
    BEFORE,
    GATEWAY,
    GATEWAY_10,
    ON_NATS,
    ON_REDIS,
    Results,
)

HELD = {
    "throughput": 24_000.0,
    "latency_p50": 120.0,
    "cpu_front": 100.0,
    "cpu_agent": 100.0,
    "http2_ratio": 0.75,
    "http2_cpu_ratio": 1.6,
    "held_kib": 12.0,
    "streams_mb": 150.0,
    "streams_share": 98.0,
    "websocket_kib": 40.0,
    "sse_cpu_front": 25.0,
    "sse_share": 99.0,
    "idle_alone_rss": 40.0,
    "channels_kib": 8.0,
    "channels_cpu": 1.0,
    "grpc_cpu_ratio": 2.0,
    "many_ready": 10.0,
    "many_memory": 300.0,
    "many_list_p99": 100.0,
}
OF_10 = {"cpu_front": 100.0 / 1.1}
OF_AIOHTTP = {"throughput": 10_000.0, "latency_p50": 150.0}


def outcomes(results: Results) -> list[BarOutcome]:
    return [verdict.outcome for verdict in judge(results)]


def run(**changed: float) -> Results:
    results = Results()
    results.add(1, GATEWAY, {**HELD, **changed})
    results.add(1, AIOHTTP, OF_AIOHTTP)
    results.add(1, GATEWAY_10, OF_10)
    return results


def test_every_bar_holds_at_its_limit() -> None:
    assert outcomes(run()) == [BarOutcome.PASS] * len(BARS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("throughput", 23_999.0),
        ("latency_p50", 120.1),
        ("cpu_agent", 100.1),
        ("held_kib", 12.1),
        ("sse_cpu_front", 25.1),
        ("sse_share", 98.9),
        ("idle_alone_rss", 40.1),
        ("channels_kib", 8.1),
        ("channels_cpu", 1.1),
        ("many_ready", 10.1),
        ("many_memory", 300.1),
        ("many_list_p99", 100.1),
    ],
)
def test_each_bar_is_missed_by_its_own_figure_alone(key: str, value: float) -> None:
    assert outcomes(run(**{key: value})).count(BarOutcome.FAIL) == 1


def test_the_cpu_of_an_invocation_has_a_bar_of_its_own_and_one_beside_few_functions() -> None:
    assert outcomes(run(cpu_front=100.1)).count(BarOutcome.FAIL) == 2
    results = run(cpu_front=50.0)
    results.add(1, GATEWAY_10, {"cpu_front": 45.0})
    assert outcomes(results).count(BarOutcome.FAIL) == 1


def test_nothing_measured_is_no_bar_missed() -> None:
    assert outcomes(Results()) == [BarOutcome.NOT_MEASURED] * len(BARS)


def test_a_failed_row_misses_its_bars() -> None:
    results = run()
    results.fail(1, GATEWAY, "throughput", "12 errored")

    failed = [v.bar.title for v in judge(results) if v.outcome is BarOutcome.FAIL]

    assert failed == [bar.title for bar in BARS if (GATEWAY, "throughput") in bar.needs]
    assert len(failed) == 4


def test_a_comparison_is_missed_when_the_peer_failed() -> None:
    results = run()
    results.fail(1, AIOHTTP, "latency", "did not start")

    assert outcomes(results).count(BarOutcome.FAIL) == 1


def test_the_rate_of_streams_is_judged_by_the_worst_round() -> None:
    results = run()
    results.add(2, GATEWAY, {"sse_share": 100.0})
    results.add(3, GATEWAY, {"sse_share": 98.0})

    assert outcomes(results).count(BarOutcome.FAIL) == 1


RATIOS = {
    "cpu_all": 0.30,
    "cpu_front": 0.35,
    "throughput": 3.0,
    "latency_p50": 0.40,
    "latency_p99": 0.40,
    "queued_cpu_all": 0.90,
    "queued_p50": 0.90,
    "queued_cpu_broker": 0.65,
    "sse_p50": 0.55,
    "sse_p99": 0.55,
    "sse_cpu_all": 0.70,
    "held_kib": 1.0,
    "idle_rss": 0.50,
    "leave_p50": 0.25,
}


def against(results: Results) -> list[BarOutcome]:
    return [verdict.outcome for verdict in judge(results) if verdict.bar in AGAINST]


def beside_before(**changed: float) -> Results:
    results = Results()
    results.add(1, GATEWAY, {**RATIOS, **changed})
    results.add(1, BEFORE, dict.fromkeys(RATIOS, 1.0))
    return results


def test_every_ratio_to_the_build_before_holds_at_its_limit() -> None:
    assert against(beside_before()) == [BarOutcome.PASS] * len(AGAINST)


@pytest.mark.parametrize("key", RATIOS)
def test_each_ratio_is_missed_by_its_own_figure_alone(key: str) -> None:
    worse = 0.99 if key == "throughput" else 1.01
    results = beside_before(**{key: RATIOS[key] * worse})

    assert against(results).count(BarOutcome.FAIL) == 1


def test_a_ratio_is_missed_when_the_build_before_failed() -> None:
    results = beside_before()
    results.fail(1, BEFORE, "leave", "did not start")

    assert against(results).count(BarOutcome.FAIL) == 1


def test_without_a_build_before_there_are_no_ratios_to_it() -> None:
    assert against(run()) == []


ON_REDIS_TIMES = {"cpu_broker": 0.50, "cpu_programs": 0.95, "latency_p50": 0.85}


@pytest.mark.parametrize("key", ON_REDIS_TIMES)
def test_the_queue_on_redis_is_judged_by_its_ratios_to_nats(key: str) -> None:
    def outcomes_of(**changed: float) -> list[BarOutcome]:
        results = Results()
        results.add(1, ON_NATS, dict.fromkeys(ON_REDIS_TIMES, 1.0))
        results.add(1, ON_REDIS, {**ON_REDIS_TIMES, **changed})
        return [verdict.outcome for verdict in judge(results) if verdict.bar in REDIS]

    assert outcomes_of() == [BarOutcome.PASS] * len(REDIS)
    assert outcomes_of(**{key: 1.0}).count(BarOutcome.FAIL) == 1
