"""When the inference server gets requests, by what is known of it."""

from worker_agent.inference.liveness import (
    DOUBTED,
    DOWN,
    MAX_RETRY_S,
    RETRY_S,
    UP,
    Liveness,
)

INTERVAL_S = 10.0


def liveness(max_misses: int = 3) -> Liveness:
    return Liveness(INTERVAL_S, max_misses)


def miss(server: Liveness, *, is_refused: bool = False, is_busy: bool = False) -> None:
    server.missed(is_refused=is_refused, is_busy=is_busy)


def test_it_takes_several_missed_probes_in_a_row_to_be_down() -> None:
    server = liveness()
    for _ in range(2):
        miss(server)
        miss(server)
        assert (server.state, server.probe_in_s) == (UP, INTERVAL_S)
        server.healthy()
    for _ in range(3):
        miss(server)
    assert server.state is DOWN
    server.healthy()
    assert (server.state, server.probe_in_s) == (UP, INTERVAL_S)


def test_a_server_that_runs_requests_is_busy_and_not_down_however_often_it_misses() -> None:
    server = liveness(1)
    for _ in range(100):
        miss(server, is_busy=True)
    assert (server.state, server.probe_in_s) == (UP, INTERVAL_S)


def test_a_refused_connection_means_down_at_once_even_if_requests_run() -> None:
    probed, called = liveness(), liveness()
    miss(probed, is_refused=True, is_busy=True)
    called.unreachable(is_busy=False, has_served=True)
    assert probed.state is called.state is DOWN
    assert probed.probe_in_s == called.probe_in_s == 0.0


def test_a_server_that_takes_no_more_connections_is_busy_and_gets_no_more_for_now() -> None:
    server = liveness(1)
    server.unreachable(is_busy=True, has_served=True)
    miss(server, is_busy=True)
    assert server.state is DOUBTED
    server.healthy()
    assert server.state is UP


def test_a_broken_request_is_followed_by_a_probe_at_once_and_no_more_requests() -> None:
    server = liveness()
    server.broke(has_served=True)
    assert (server.state, server.probe_in_s) == (DOUBTED, 0.0)
    server.healthy()
    assert (server.state, server.probe_in_s) == (UP, INTERVAL_S)


def test_a_server_in_doubt_gets_requests_again_only_after_a_healthy_probe() -> None:
    server = liveness()
    server.unresponsive()
    for _ in range(5):
        miss(server, is_busy=True)
        assert server.state is DOUBTED
    for _ in range(3):
        miss(server)
    assert server.state is DOWN
    server.broke(has_served=True)
    server.unresponsive()
    assert server.state is DOWN


def test_probes_of_a_server_that_is_down_become_rarer() -> None:
    server = liveness()
    server.unreachable(is_busy=False, has_served=True)
    waits = [server.probe_in_s]
    for _ in range(9):
        miss(server)
        waits.append(server.probe_in_s)
    assert waits[:4] == [0.0, RETRY_S, 2 * RETRY_S, 4 * RETRY_S]
    assert waits[-1] == MAX_RETRY_S


def test_a_server_that_is_healthy_and_breaks_every_request_gets_fewer_and_fewer() -> None:
    server = liveness()
    waits = []
    for _ in range(12):
        server.broke(has_served=False)
        waits.append(server.probe_in_s)
        server.healthy()
    assert waits[:3] == [0.0, RETRY_S, 2 * RETRY_S]
    assert waits[-1] == INTERVAL_S
    server.broke(has_served=True)
    assert server.probe_in_s == 0.0


def test_a_whole_interval_of_health_makes_up_for_earlier_failures() -> None:
    server = liveness()
    for _ in range(5):
        server.broke(has_served=False)
        server.healthy()
    server.healthy()
    server.broke(has_served=False)
    assert server.probe_in_s == 0.0
