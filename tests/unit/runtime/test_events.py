import io
import json
import logging
from collections.abc import Iterator

import pytest

from runtime import logs
from runtime.events import emit

log = logging.getLogger("gateway.test.events")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    stream = io.StringIO()
    logs.setup("info", stream=stream)
    yield stream
    root.handlers[:], root.level, logging.raiseExceptions = before


def test_an_event_is_its_name_and_its_fields(written: io.StringIO) -> None:
    emit(log, "worker.lease_lost", request_id="r", deliveries=2)
    line = json.loads(written.getvalue())
    del line["ts"]
    assert line == {
        "level": "info",
        "logger": "gateway.test.events",
        "event": "worker.lease_lost",
        "request_id": "r",
        "deliveries": 2,
    }


def test_any_field_name_is_possible_and_none_replaces_the_events_own(written: io.StringIO) -> None:
    emit(log, "worker.resized", logging.WARNING, **{"from": 1, "log": "x", "event": "other"})
    line = json.loads(written.getvalue())
    assert (line["level"], line["event"], line["from"], line["log"]) == (
        "warning",
        "worker.resized",
        1,
        "x",
    )


def test_an_exception_comes_with_its_traceback(written: io.StringIO) -> None:
    emit(log, "task.failed", logging.ERROR, ValueError("boom"), task="t")
    line = json.loads(written.getvalue())
    assert (line["level"], line["task"]) == ("error", "t")
    assert "ValueError: boom" in line["error"]


def test_an_event_below_the_level_is_not_written(written: io.StringIO) -> None:
    emit(log, "worker.idle", logging.DEBUG)
    assert written.getvalue() == ""


def test_the_record_names_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    emit(log, "worker.idle", logging.ERROR)
    assert caplog.records[0].funcName == "test_the_record_names_the_caller"
