"""Helm, which `tests.chart.run` builds."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def helm() -> Path:
    """Return the program."""
    found = shutil.which(os.environ.get("HELM", "helm"))
    if found is None:
        pytest.skip("there is no helm: make test-chart builds it")
    return Path(found)
