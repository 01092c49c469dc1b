"""Check the Helm chart: ``python -m tests.chart.run``; further arguments go to pytest.

Helm is a Go program; unless it is installed, it is built once, into the user's cache folder. Where
Go is missing this says so and ends with 0.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.helm import find


def main() -> int:
    """Return the exit status."""
    helm = find()
    if helm is None:
        print("Helm and Go are missing, so the chart is not rendered: apt-get install golang")
        return 0
    if shutil.which("promtool") is None:
        print("promtool is missing, so the alerts are not checked: apt-get install prometheus")
    os.environ["HELM"] = str(helm)
    return pytest.main(["-q", str(Path(__file__).parent), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
