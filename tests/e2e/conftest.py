"""The whole system as a newcomer starts it, once for all tests that leave it as it is."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.programs import PATIENCE_S, Program, gateway


class Dev(NamedTuple):
    """A running `gateway dev`."""

    program: Program
    ready: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return {
            "authorization": f"Bearer {self.ready['api_key']}",
            "host": f"{self.ready['function_id']}.invocation.localhost",
        }

    def client(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.ready["invocation_url"], headers=self.headers, timeout=PATIENCE_S, **more
        )


def start_dev(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Dev:
    """Start `gateway dev` on free ports and wait until it says that it is ready."""
    ready_file = folder / "ready.json"
    program = gateway("dev", "--port", "0", "--ready-file", str(ready_file), *arguments, env=env)
    try:
        program.wait_line(lambda line: line.startswith("Ready."), 3 * PATIENCE_S)
        program.wait_line(lambda line: "curl -N" in line)
        while not ready_file.exists():
            assert program.process.poll() is None
        return Dev(program, json.loads(ready_file.read_text()))
    except BaseException:
        program.stop()
        raise


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    running = start_dev(tmp_path_factory.mktemp("dev"))
    yield running
    assert running.program.stop() == 0
