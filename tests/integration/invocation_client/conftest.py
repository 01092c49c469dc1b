import pytest

from tests.integration.invocation_client.callers import CALLERS, Callers


@pytest.fixture(params=CALLERS)
def callers(request: pytest.FixtureRequest) -> Callers:
    """Make clients, of threads in one run of a test, of tasks in the other."""
    return Callers(CALLERS[request.param])
