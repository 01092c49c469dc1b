"""Every test here runs on uvloop, which serves, and on asyncio's loop, which is the reference."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


@pytest.hookimpl
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
