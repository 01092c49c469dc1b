"""The environments that `make test-servers` makes, one for each file in ``requirements/``."""

import os
from pathlib import Path

import pytest

FOLDER = os.environ.get("MODEL_SERVERS", "")
HERE = Path(__file__).parent
LOADING_S = 240.0
NEEDS_SERVERS = [
    pytest.mark.skipif(not FOLDER, reason="make test-servers installs the servers"),
    pytest.mark.timeout(LOADING_S + 60),
]


def program(server: str, name: str) -> str:
    """Return a program of a server's environment, without this project's packages in its path."""
    return f"env -u PYTHONPATH {FOLDER}/{server}/bin/{name}"
