import pytest

from gateway.api.sdk_compat import is_old_sdk, project


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-sideko-sdk-language": "Python"}, True),
        ({"user-agent": "Konfig/2.87.3/python"}, True),
        ({"user-agent": "Konfig/2.88.0/python"}, False),
        ({"user-agent": "python-httpx/0.26.0"}, False),
        ({}, False),
    ],
)
def test_only_the_sdks_of_that_time_are_old(headers: dict[str, str], expected: bool) -> None:
    assert is_old_sdk(headers) is expected


def test_states_an_old_sdk_does_not_know_become_ones_it_does() -> None:
    assert project({"function": {"status": "DEGRADED"}}) == {
        "function": {"status": "DEPLOYING", "statusDetail": "DEGRADED"}
    }
    assert project({"queues": [{"functionStatus": "DEGRADING"}, {"functionStatus": "ACTIVE"}]}) == {
        "queues": [
            {"functionStatus": "ACTIVE", "statusDetail": "DEGRADING"},
            {"functionStatus": "ACTIVE"},
        ]
    }


def test_what_only_looks_like_a_state_stays() -> None:
    body = {
        "deployment": {
            "functionStatus": "ACTIVE",
            "deploymentSpecifications": [{"configuration": {"status": "DEGRADED"}}],
        }
    }
    assert project(body) == body
    health = {"icmsRequestId": "i", "error": "x"}
    assert project({"deployment": {"healthInfo": [health]}}) == {
        "deployment": {"healthInfo": [health]}
    }
