"""Every test here runs on both loops, the product's uvloop and asyncio's own, which differ."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ONE_LOOP = "test_process.py"
"""There the agent is a process of its own, and the test's loop makes no difference."""


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name == ONE_LOOP:
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
