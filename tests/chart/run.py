"""Check the Helm chart: ``python -m tests.chart.run``; further arguments go to pytest.

Helm is a Go program; unless it is installed, it is built once, into the user's cache folder. Where
Go is missing this says so and ends with 0.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "v4.3.2"
MODULE = f"helm.sh/helm/v4/cmd/helm@{VERSION}"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
FOLDER = CACHE / "invocation-gateway" / f"helm-{VERSION}"


def installed() -> Path | None:
    """Return Helm: that of HELM or PATH, or the one that was built; `None` if there is none."""
    found = shutil.which(os.environ.get("HELM", "helm"))
    if found is not None:
        return Path(found)
    program = FOLDER / "helm"
    return program if program.exists() else None


def find() -> Path | None:
    """Return Helm, built if there is none; `None` without Go."""
    if (found := installed()) is not None or shutil.which("go") is None:
        return found
    print(f"building {MODULE} into {FOLDER}, which takes some minutes ...", flush=True)
    subprocess.run(["go", "install", MODULE], env={**os.environ, "GOBIN": str(FOLDER)}, check=True)
    return installed()


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
