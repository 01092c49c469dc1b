"""The servers of this session, skipped where they are missing."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kubernetes.cluster import Cluster, cluster_on
from tests.kubernetes.programs import MODULES, find
from tests.kubernetes.servers import Servers
from tests.support.helm import installed


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    if "TEST_KUBERNETES" not in os.environ:
        pytest.skip("run by make test-kubernetes")
    missing = [name for name in MODULES if find(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing: make test-kubernetes builds them")
    folder: Path = tmp_path_factory.mktemp("kubernetes")
    found = Servers(folder)
    try:
        found.start()
        yield found
    finally:
        found.end()


@pytest.fixture(scope="session")
def helm() -> Path:
    found = installed()
    if found is None:
        pytest.skip("there is no helm: make test-kubernetes builds it")
    return found


@pytest.fixture
async def cluster(servers: Servers) -> AsyncIterator[Cluster]:
    async with cluster_on(servers) as found:
        yield found
