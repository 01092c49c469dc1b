"""Half a minute of chaos: `tests.chaos.run` with its fixed faults."""

import subprocess
import sys

import pytest

from tests.support.programs import ROOT

LIMIT_S = 300.0
"""The run takes 45 s; longer only if something hangs, which it then reports itself."""


@pytest.mark.timeout(LIMIT_S + 30)
def test_half_a_minute_of_faults_violates_no_check() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"
