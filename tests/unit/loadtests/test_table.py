import json

from loadtests.bars import judge
from loadtests.figures import AIOHTTP, BEFORE, DIRECT, GATEWAY, Results
from loadtests.table import document, render


def three_rounds() -> Results:
    results = Results()
    for number, value in enumerate([30_500.0, 29_000.0, 31_250.0], 1):
        results.add(number, GATEWAY, {"throughput": value, "cpu_front": 50.0})
        results.add(number, DIRECT, {"throughput": value * 2})
    return results


def test_a_cell_is_the_median_and_the_range() -> None:
    text = render(three_rounds(), judge(Results()))

    line = next(each for each in text.splitlines() if "req/s" in each)
    assert line.split("  ")[-1].strip() == "30,500 (29,000..31,250)"


def test_equal_rounds_show_no_range_and_missing_figures_a_dash() -> None:
    text = render(three_rounds(), judge(Results()))

    line = next(each for each in text.splitlines() if "CPU, gateway" in each)
    assert line.split()[-2:] == ["-", "50.0"]


def test_rows_that_nobody_measured_are_left_out() -> None:
    assert "100 MB bodies" not in render(three_rounds(), judge(Results()))


def test_a_build_is_compared_with_the_one_before_round_by_round() -> None:
    results = three_rounds()
    for number, value in enumerate([61_000.0, 29_000.0, 62_500.0], 1):
        results.add(number, BEFORE, {"throughput": value})

    text = render(results, judge(results))

    changes = text.partition("This build, times the one before\n")[2].partition("\n\n")[0]
    assert changes.split("  ")[1:] == [
        "Small invocation, 64 connections: throughput",
        "x",
        "0.500 (0.500..1.000)",
    ]


def test_a_failed_row_says_so_and_why() -> None:
    results = three_rounds()
    results.fail(3, GATEWAY, "throughput", "7 answers that are not 2xx")

    text = render(results, judge(results))

    line = next(each for each in text.splitlines() if "req/s" in each)
    assert line.split()[-1] == "failed"
    assert "throughput, gateway, round 3: 7 answers that are not 2xx" in text


def test_columns_stand_under_their_heading() -> None:
    results = three_rounds()
    results.add(1, AIOHTTP, {"throughput": 8_000.0})

    head, *lines = render(results, judge(Results())).split("\n\n")[0].splitlines()

    end = head.index("aiohttp") + len("aiohttp")
    assert next(line for line in lines if "req/s" in line)[:end].endswith(" 8,000")


def test_the_document_holds_the_figures_of_each_round_and_is_json() -> None:
    results = three_rounds()

    found = json.loads(json.dumps(document(results, judge(results), {"at": "now"})))

    assert found["figures"]["throughput"]["systems"]["gateway"] == {
        "median": 30_500.0,
        "low": 29_000.0,
        "high": 31_250.0,
        "rounds": [30_500.0, 29_000.0, 31_250.0],
    }
    assert found["at"] == "now"
    assert found["passed"] is True


def test_the_document_of_a_failed_run_says_so() -> None:
    results = three_rounds()
    results.fail(1, AIOHTTP, "sse", "streams stalled")

    assert document(results, judge(results), {})["passed"] is False
