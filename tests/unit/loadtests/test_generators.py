import pytest

from loadtests.errors import MeasurementError
from loadtests.generators import Summary, parse_h2load, parse_wrk

WRK = """Running 4s test @ http://127.0.0.1:9302/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     7.61ms    2.54ms  69.84ms   95.60%
    Req/Sec     8.60k   740.07     9.55k    80.00%
  34206 requests in 4.00s, 11.32MB read
Requests/sec:   8547.54
Transfer/sec:      2.83MB
"""
WRK_WITH_FAILURES = """  4521 requests in 4.00s, 1.06MB read
  Socket errors: connect 0, read 44231, write 0, timeout 3
  Non-2xx or 3xx responses: 4521
Requests/sec:   1129.07
"""
H2LOAD = """starting benchmark...
finished in 3.00s, 190163.67 req/s, 49.69MB/s
requests: 570491 total, 570555 started, 570491 done, 570491 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 570491 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 149.07MB (156314534) total, 24.49MB (25674975) headers (space savings 0.00%)
"""  # noqa: E501


def test_wrk_report_without_failures() -> None:
    assert parse_wrk(WRK) == Summary(34206, 8547.54, "")


def test_wrk_failures_are_seen() -> None:
    failures = parse_wrk(WRK_WITH_FAILURES).failures
    assert "4521 answers that are not 2xx" in failures
    assert "read 44231, write 0, timeout 3" in failures


def test_h2load_report_without_failures() -> None:
    assert parse_h2load(H2LOAD) == Summary(570491, 190163.67, "")


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("0 failed", "3 failed", "3 failed"),
        ("0 errored", "4 errored", "4 errored"),
        ("0 timeout", "5 timeout", "5 timeout"),
        ("570491 2xx, 0 3xx, 0 4xx, 0 5xx", "570490 2xx, 0 3xx, 1 4xx, 0 5xx", "1 answers"),
        ("570491 2xx, 0 3xx", "570489 2xx, 2 3xx", "2 answers"),
    ],
)
def test_h2load_failures_are_seen(good: str, bad: str, said: str) -> None:
    assert said in parse_h2load(H2LOAD.replace(good, bad)).failures


def test_a_run_without_answers_is_a_failure() -> None:
    nothing = "  0 requests in 4.00s, 0.00B read\nRequests/sec:      0.00\n"
    assert parse_wrk(nothing).failures == "no answers"


@pytest.mark.parametrize("parse", [parse_wrk, parse_h2load])
def test_a_report_of_something_else_is_refused(parse: object) -> None:
    assert callable(parse)
    with pytest.raises(MeasurementError, match="did not say"):
        parse("usage: …")
