"""The log formats, and a writer that a stalled reader cannot block."""

import asyncio
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import logs
from runtime.logs import LineWriter


@pytest.fixture(autouse=True)
def _root_logger_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    names = ("gateway", "worker", "http1", "queueing", "runtime")
    own = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:], root.level, logging.raiseExceptions = before
    for name, level in own.items():
        logging.getLogger(name).setLevel(level)


def logged(level: str, *, as_json: bool = True) -> str:
    stream = io.StringIO()
    logs.setup(level, json=as_json, stream=stream)
    log = logging.getLogger("gateway.test")
    log.debug("too.quiet")
    error = ValueError("wrong")
    fields = {"count": 3, "level": "mine", "path": Path("/x")}
    log.error("a.failed", exc_info=error, extra={"fields": fields})
    return stream.getvalue()


def test_an_event_is_one_json_object_with_its_fields_and_its_traceback() -> None:
    (line,) = logged("info").splitlines()
    event = json.loads(line)
    assert event["level"] == "error"
    assert event["logger"] == "gateway.test"
    assert event["event"] == "a.failed"
    assert event["count"] == 3
    assert event["path"] == "/x"
    assert event["error"].endswith("ValueError: wrong")
    assert event["ts"].endswith("Z")
    assert len(event["ts"]) == len("2026-01-01T00:00:00.000Z")


def test_people_get_the_same_on_a_line_they_can_read() -> None:
    first, *_, last = logged("info", as_json=False).splitlines()
    assert "ERROR gateway.test a.failed count=3" in first
    assert last == "ValueError: wrong"


def test_the_level_decides_what_is_written() -> None:
    assert "too.quiet" in logged("debug")


def test_libraries_write_warnings_only_whatever_the_level() -> None:
    stream = io.StringIO()
    logs.setup("debug", stream=stream)
    library = logging.getLogger("nats.aio")
    library.debug("sends.something")
    library.info("sends.something")
    library.warning("is.worried")
    logging.getLogger("worker.pull").debug("is.shown")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "is.worried",
        "is.shown",
    ]


def test_a_line_of_json_can_be_shown_as_text() -> None:
    line = '{"ts":"2026-01-01T12:00:01.123Z","level":"info","logger":"a.b","event":"c.d",'
    fields = '"n":3,"empty":"","path":"/x y","forged":"a\\nb","list":["a","b"]}\n'
    assert logs.as_text(line + fields) == (
        '12:00:01.123 INFO a.b c.d n=3 empty="" path="/x y" forged="a\\nb" list=a,b\n'
    )


async def test_lines_leave_by_themselves_shortly_after_they_were_written(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_reader(readable, arrived.set)
    writer = LineWriter(writable, interval_s=0.01)
    writer.write("one\n")
    writer.write("two\n")
    async with asyncio.timeout(10):
        await arrived.wait()
    assert os.read(readable, 100) == b"one\ntwo\n"
    asyncio.get_running_loop().remove_reader(readable)
    writer.close()
    os.close(readable)
    os.close(writable)


async def test_a_reader_that_stalls_costs_lines_but_no_time_and_no_order() -> None:
    readable, writable = os.pipe()
    writer = LineWriter(writable, max_buffer_bytes=300_000)
    lines = [b"%06d %s\n" % (n, b"x" * 92) for n in range(5_000)]
    for line in lines:
        writer.write(line.decode())
        writer.flush()
    kept = len(lines) - writer.dropped
    assert 3_000 <= kept < 4_500
    loop = asyncio.get_running_loop()
    closed = loop.run_in_executor(None, writer.close, 10.0)
    reader = os.fdopen(readable, "rb")
    read = [await loop.run_in_executor(None, reader.readline) for _ in range(kept)]
    assert read == lines[:3_000] + read[3_000:]
    assert set(read) <= set(lines)
    await closed
    reader.close()
    os.close(writable)


async def test_a_reader_that_left_is_not_an_error() -> None:
    readable, writable = os.pipe()
    os.close(readable)
    writer = LineWriter(writable, max_buffer_bytes=100)
    for _ in range(3):
        writer.write("x" * 90 + "\n")
        writer.close()
    assert writer.dropped == 0
    os.close(writable)


async def test_close_writes_the_rest_and_the_writer_can_go_on(tmp_path: Path) -> None:
    with (tmp_path / "access.log").open("wb") as file:
        writer = LineWriter(file.fileno())
        writer.write("a\n")
        writer.close()
        assert (tmp_path / "access.log").read_bytes() == b"a\n"
        writer.write("b\n")
        writer.close()
    assert (tmp_path / "access.log").read_bytes() == b"a\nb\n"


def test_lines_for_a_pipe_are_cut_only_between_lines() -> None:
    lines = ["a" * 3000 + "\n", "b" * 1000 + "\n", "c" * 100 + "\n", "d" * 9000 + "\n"]
    batches = logs.join_for_pipe(lines)
    assert [len(batch) for batch in batches] == [4002, 101, 9001]
    assert "".join(batches) == "".join(lines)
