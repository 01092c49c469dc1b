from loadtests.proc import Role
from loadtests.scenarios.small import cpu_figures


def test_the_cpu_of_all_is_that_of_gateway_agent_and_queue() -> None:
    used = {Role.FRONT: 2.0, Role.AGENT: 1.0, Role.BROKER: 0.5, Role.INFERENCE: 4.0}

    assert cpu_figures(used, 10_000) == {
        "cpu_front": 200.0,
        "cpu_agent": 100.0,
        "cpu_broker": 50.0,
        "cpu_inference": 400.0,
        "cpu_programs": 300.0,
        "cpu_all": 350.0,
    }


def test_a_proxy_has_no_cpu_of_all() -> None:
    used = {Role.FRONT: 2.0, Role.INFERENCE: 4.0}

    assert cpu_figures(used, 10_000) == {"cpu_front": 200.0, "cpu_inference": 400.0}
