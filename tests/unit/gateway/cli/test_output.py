"""Standard output that cannot be written ends a command with one line, or with none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "gateway", "config", "show")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    expected = b"gateway: The output cannot be written: No space left on device.\n"
    assert ended.stderr == expected


def test_nothing_is_said_to_a_reader_that_has_left() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(COMMAND, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")
