"""Helm: from PATH, or built once by Go into the user's cache folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
    sys.stderr.write(f"building {MODULE} into {FOLDER}, which takes some minutes ...\n")
    subprocess.run(["go", "install", MODULE], env={**os.environ, "GOBIN": str(FOLDER)}, check=True)
    return installed()
