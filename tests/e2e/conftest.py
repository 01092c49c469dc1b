"""The whole system as a newcomer starts it, once for all tests that leave it as it is."""

from collections.abc import Iterator

import pytest

from tests.support.dev import Dev, start_dev


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    running = start_dev(tmp_path_factory.mktemp("dev"))
    yield running
    assert running.program.stop() == 0
