"""The exposition as Prometheus parses it, with names exactly as declared."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.metrics import PART_LINES, Counter, MetricRegistry, ScrapedGauge


def sample_values(registry: MetricRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(registry.exposition().decode())
        for sample in family.samples
    }


def test_names_stand_exactly_as_given_and_nothing_is_added() -> None:
    registry = MetricRegistry(with_process=False)
    registry.counter("function_request", "Invocations begun").child().value += 1
    registry.counter("axum_http_requests_total", "Requests", ["status"]).child("200").value += 2
    assert registry.exposition() == (
        b"# HELP function_request Invocations begun\n"
        b"# TYPE function_request counter\n"
        b"function_request 1\n"
        b"# HELP axum_http_requests_total Requests\n"
        b"# TYPE axum_http_requests_total counter\n"
        b'axum_http_requests_total{status="200"} 2\n'
    )


def test_a_counter_that_somebody_else_counts_is_asked_at_each_scrape() -> None:
    registry = MetricRegistry(with_process=False)
    counted = iter((1, 3))
    registry.counter("nats_connects", "Connections").set_function(lambda: next(counted))
    assert registry.exposition().endswith(b"\nnats_connects 1\n")
    assert registry.exposition().endswith(b"\nnats_connects 3\n")


def test_a_histogram_counts_by_inclusive_upper_bounds() -> None:
    registry = MetricRegistry(with_process=False)
    family = registry.histogram("wait_seconds", "Waiting", [0.001, 0.01, 1], ["queue"])
    child = family.child("q")
    for value in (0.0005, 0.001, 0.5, 7.0):
        child.observe(value)
    values = sample_values(registry)
    queue = ("queue", "q")
    buckets = [
        values["wait_seconds_bucket", (("le", bound), queue)]
        for bound in ("0.001", "0.01", "1.0", "+Inf")
    ]
    assert buckets == [2, 2, 3, 4]
    assert values["wait_seconds_count", (queue,)] == 4
    assert values["wait_seconds_sum", (queue,)] == pytest.approx(7.5015)


def test_a_gauge_shows_its_value_or_asks_a_function() -> None:
    registry = MetricRegistry(with_process=False)
    registry.gauge("pending", "Now", ["endpoint"]).child("TLB").value = 3
    registry.gauge("connections", "Now").set_function(lambda: 1.5)
    assert sample_values(registry) == {
        ("pending", (("endpoint", "TLB"),)): 3,
        ("connections", ()): 1.5,
    }


def test_a_summary_shows_a_sum_and_how_many_it_is_of() -> None:
    registry = MetricRegistry(with_process=False)
    child = registry.summary("size", "Bytes", ["method"]).child("GET")
    for size in (3, 4):
        child.count += 1
        child.sum += size
    assert registry.exposition() == (
        b"# HELP size Bytes\n"
        b"# TYPE size summary\n"
        b'size_sum{method="GET"} 7\n'
        b'size_count{method="GET"} 2\n'
    )


def test_labels_that_every_series_has_stand_before_its_own() -> None:
    registry = MetricRegistry(with_process=False, constant={"function_id": 'f"1'})
    registry.counter("requests_total", "Requests", ["code"]).child("0").value += 1
    registry.gauge("running", "Now").child().value = 2
    registry.histogram("wait", "Waiting", [1]).child().observe(0.5)
    shown = [line for line in registry.exposition().decode().splitlines() if line[0] != "#"]
    assert shown == [
        r'requests_total{function_id="f\"1",code="0"} 1',
        r'running{function_id="f\"1"} 2',
        r'wait_bucket{function_id="f\"1",le="1.0"} 1',
        r'wait_bucket{function_id="f\"1",le="+Inf"} 1',
        r'wait_sum{function_id="f\"1"} 0.5',
        r'wait_count{function_id="f\"1"} 1',
    ]


def test_a_family_made_elsewhere_is_shown_with_what_it_has_counted() -> None:
    registry = MetricRegistry(with_process=False)
    family = Counter("publishes", "Publishes", ["stream"])
    family.child("s").value += 2
    registry.add(family)
    assert registry.exposition().endswith(b'\npublishes{stream="s"} 2\n')
    with pytest.raises(ValueError, match="publishes"):
        registry.add(family)


def test_whatever_is_in_a_label_is_read_back() -> None:
    registry = MetricRegistry(with_process=False)
    text = 'a"b\\c\nd}{'
    registry.counter("odd_total", "Help with \\ and\nlines", ["what"]).child(text).value += 1
    assert sample_values(registry) == {("odd_total", (("what", text),)): 1}


def test_labels_beyond_the_bound_share_one_series() -> None:
    family = Counter("many", "Many", ["id"], max_children=2)
    for number in range(5):
        family.child(str(number)).value += 1
    family.child("0").value += 1
    assert "".join(family.lines()).splitlines()[2:] == [
        'many{id="0"} 2',
        'many{id="1"} 1',
        'many{id="other"} 3',
    ]


def test_the_process_itself_is_measured() -> None:
    names = {name for name, _ in sample_values(MetricRegistry())}
    assert {
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
    } <= names


def test_mistakes_in_declarations_are_errors() -> None:
    registry = MetricRegistry(with_process=False)
    registry.counter("twice", "One")
    with pytest.raises(ValueError, match="twice"):
        registry.gauge("twice", "Two")
    with pytest.raises(ValueError, match="ascend"):
        registry.histogram("h", "H", [1, 0.5])
    with pytest.raises(ValueError, match="labels"):
        registry.counter("c", "C", ["a", "b"]).child("only one")


def test_the_exposition_of_many_series_comes_in_parts() -> None:
    registry = MetricRegistry(with_process=False)
    family = registry.counter("calls", "Calls", ["version"])
    for number in range(3 * PART_LINES):
        family.child(str(number)).value = number
    whole = registry.exposition()
    parts = registry.parts()
    first = next(parts)
    # A series that is made meanwhile is in the next exposition.
    family.child("later")
    parts_left = list(parts)
    assert first + b"".join(parts_left) == whole
    # HELP and TYPE count as one line.
    assert max(part.count(b"\n") for part in (first, *parts_left)) == PART_LINES + 1


def test_a_gauge_that_is_read_at_the_scrape_has_the_series_of_that_moment_and_a_bound() -> None:
    registry = MetricRegistry(with_process=False)
    depths = {"a": 1, "b": 2}
    registry.add(
        ScrapedGauge(
            "depth",
            "Waiting",
            ("queue",),
            lambda: (((name,), depth) for name, depth in depths.items()),
            max_children=2,
        )
    )
    assert registry.exposition().endswith(b'depth{queue="a"} 1\ndepth{queue="b"} 2\n')
    del depths["a"]
    assert registry.exposition().endswith(b'gauge\ndepth{queue="b"} 2\n')
    depths.update(c=3, d=4, e=5)
    assert registry.exposition().endswith(b'depth{queue="c"} 3\ndepth{queue="other"} 9\n')
