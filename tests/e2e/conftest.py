"""What the tests of the whole system share."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.dev import Dev, start_dev
from tests.support.stack import Stack, running_stack


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """Return the system as a newcomer starts it, once for all tests that leave it as it is."""
    running = start_dev(tmp_path_factory.mktemp("dev"))
    yield running
    assert running.program.stop() == 0


@pytest.fixture
async def stack(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """Return programs of the test's own, which it may kill; the parameter is the broker's kind."""
    async with running_stack(getattr(request, "param", "nats")) as running:
        yield running
