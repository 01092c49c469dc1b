"""What is counted, under the names that NVCF's dashboards and autoscaler read."""

from gateway.invocation.states import Outcome
from gateway.telemetry.metrics import GatewayMetrics
from runtime.metrics import MetricRegistry
from tests.support.invocation_world import FUNCTION, VERSION, World


def lines(registry: MetricRegistry) -> list[str]:
    return registry.exposition().decode().splitlines()


def test_a_request_is_pending_under_its_method_until_it_is_over() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    world = World()
    pending = 'axum_http_requests_pending{method="%s",endpoint="TLB"} %d'
    metrics.record_start(world.invocation)
    assert pending % ("POST", 1) in lines(registry)
    metrics.record_end(world.invocation, world.now)
    assert pending % ("POST", 0) in lines(registry)


def test_a_method_that_nobody_knows_is_not_a_label() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    world = World()
    world.invocation.method = b"X-0815"
    metrics.record_start(world.invocation)
    metrics.record_end(world.invocation, world.now)
    metrics.record_refusal(b"X-0815", 404, "UNKNOWN")
    assert not [line for line in lines(registry) if "X-0815" in line]
    assert 'axum_http_requests_total{method="OTHER",status="404",endpoint="UNKNOWN"} 1' in lines(
        registry
    )


def test_a_client_that_leaves_and_a_workers_problem_are_no_errors_of_the_gateway() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    gone = World().publish()
    gone.invocation.request_broken()
    failed = World().publish().attach()
    failed.invocation.completion = Outcome.INFERENCE_LOST
    failed.head(500)
    failed.invocation.response_end()
    expired = World().publish()
    expired.invocation.deadline_passed(162.0, 1)
    expired.invocation.position_known(0, 1)
    for world in (gone, failed, expired):
        metrics.record_start(world.invocation)
        metrics.record_end(world.invocation, world.now)
    errors = [line for line in lines(registry) if line.startswith("app_invocation_error{")]
    labels = f'http_status_code="504",function_id="{FUNCTION}"'
    assert errors == [
        'app_invocation_error{http_status_code="499",function_id=""} 0',
        f"app_invocation_error{{{labels}}} 1",
    ]
    for outcome in ("client_gone", "inference_lost", "poll_timeout"):
        assert f'gateway_invocations_total{{outcome="{outcome}"}} 1' in lines(registry)


def test_the_bytes_of_answers_are_summed_by_method_and_status() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    for size in (1000, 24):
        world = World().publish().attach()
        world.head()
        world.invocation.response_data(bytes(size))
        world.invocation.response_end()
        metrics.record_start(world.invocation)
        metrics.record_end(world.invocation, world.now)
    labels = 'method="POST",status="200",endpoint="TLB"'
    shown = lines(registry)
    assert "# TYPE axum_http_response_body_size summary" in shown
    assert f"axum_http_response_body_size_sum{{{labels}}} 1024" in shown
    assert f"axum_http_response_body_size_count{{{labels}}} 2" in shown


def test_the_response_to_a_preflight_is_no_error() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    metrics.record_refusal(b"OPTIONS", 204, "TLB")
    metrics.record_refusal(b"POST", 404, "TLB", "not_found")
    errors = [line for line in lines(registry) if line.startswith("app_invocation_error{")]
    assert [line.rpartition(" ")[2] for line in errors if "404" in line] == ["1"]
    assert not any("204" in line for line in errors)


def test_a_polled_call_is_measured_under_its_route_and_its_exchanges_are_counted() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    route = "/v2/nvcf/pexec/functions/{functionId}"
    world = World(is_polled=True)
    world.invocation.route = route
    metrics.record_start(world.invocation)
    pending = f'axum_http_requests_pending{{method="POST",endpoint="{route}"}} %d'
    assert pending % 1 in lines(registry)
    world.publish().attach().head()
    world.invocation.response_end()
    metrics.record_end(world.invocation, world.now)
    # The client that made the call got a 202, and another one polled.
    metrics.record_refusal(b"POST", 202, route)
    shown = lines(registry)
    assert pending % 0 in shown
    labels = f'method="POST",status="%d",endpoint="{route}"'
    assert f"axum_http_requests_duration_seconds_count{{{labels % 200}}} 1" in shown
    assert f"axum_http_requests_total{{{labels % 202}}} 1" in shown
    host_routed = [line for line in shown if 'endpoint="TLB"' in line]
    assert {line.rpartition(" ")[2] for line in host_routed} == {"0"}


class Counts:
    """What the channels of a process have counted."""

    direct, busy, late, links_lost = 40, 3, 1, 2

    def __len__(self) -> int:
        return 5

    def running(self) -> dict[str, int]:
        return {VERSION: 7}

    def slots(self) -> list[tuple[str, int]]:
        return [(VERSION, 9), ("unknown", 1)]


def test_calls_are_counted_by_the_way_that_they_go() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    metrics.record_start(World().invocation)
    metrics.watch_dispatch(Counts(), lambda: 60)
    shown = lines(registry)
    version = f'function_id="{FUNCTION}",function_version_id="{VERSION}"'
    assert "# TYPE gateway_dispatched_total counter" in shown
    for line in (
        'gateway_dispatched_total{dispatch="direct"} 40',
        'gateway_dispatched_total{dispatch="queued"} 60',
        'gateway_channel_refusals_total{reason="busy"} 3',
        'gateway_channel_refusals_total{reason="late"} 1',
        "gateway_channel_losses_total 2",
        "gateway_channels 5",
        f"gateway_channel_calls{{{version}}} 7",
        f"gateway_channel_free_slots{{{version}}} 9",
        'gateway_channel_free_slots{function_id="",function_version_id="unknown"} 1',
    ):
        assert line in shown
