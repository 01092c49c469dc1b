"""Ctrl-C while a program imports its modules ends it without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
INTERRUPT = """
import os, signal, sys
os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit("the interrupt was lost")
"""
"""A module in place of one that the program imports: Ctrl-C arrives meanwhile."""


@pytest.mark.parametrize(
    ("program", "imported"),
    [
        (["gateway", "serve"], "uvloop"),
        (["gateway", "functions", "list"], "rich"),
        (["worker_agent"], "uvloop"),
    ],
)
def test_an_interrupt_during_imports_shows_no_traceback(
    tmp_path: Path, program: list[str], imported: str
) -> None:
    (tmp_path / f"{imported}.py").write_text(INTERRUPT)
    ended = subprocess.run(
        [sys.executable, "-P", "-m", *program],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_command_that_is_under_way_cleans_up_and_ends_with_the_same_code(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def interrupt(event, arguments):\n"
        "    if event == 'socket.connect':\n"
        "        import os, signal\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(interrupt)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", "functions", "list"],
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
            "GATEWAY_API_KEY": "k",
            "GATEWAY_API_URL": "http://127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
