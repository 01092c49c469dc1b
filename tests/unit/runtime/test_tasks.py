"""Spawned tasks are referenced, their failures logged, and all can be cancelled."""

import asyncio
import gc
import logging

import pytest

from runtime.tasks import cancel_all, spawn


async def test_a_task_that_nobody_holds_still_ends() -> None:
    release = asyncio.Event()
    ended = asyncio.Event()

    async def work() -> None:
        await release.wait()
        ended.set()

    spawn(work(), "work")
    gc.collect()
    release.set()
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_failure_is_logged_with_its_traceback_and_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("wrong")

    await asyncio.wait([spawn(fail(), "watcher")])
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.__dict__["fields"] == {"task": "watcher"}
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_cancel_all_waits_for_tidying_and_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = asyncio.Event()
    tidied: list[str] = []

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            spawn(asyncio.Event().wait(), "late")
            tidied.append("work")

    task = spawn(work(), "work")
    async with asyncio.timeout(10):
        await begun.wait()
        await cancel_all()
    assert task.cancelled()
    assert tidied == ["work"]
    assert caplog.records == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
