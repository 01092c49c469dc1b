"""kube-apiserver and etcd: from PATH, from the user's cache, or built by Go.

``python -m tests.kubernetes.programs`` builds what is missing, Helm included, and downloads the
definitions of custom resources. Without Go it says so and ends with 0; the tests are skipped then.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kubernetes import crds
from tests.support import helm

HERE = Path(__file__).parent
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "invocation-gateway" / "bin"
)
MODULES = {"kube-apiserver": HERE / "apiserver", "etcd": HERE / "etcd"}
"""Folder of the main module of each program."""
SOURCES = {"kube-apiserver": "k8s.io/kubernetes", "etcd": "go.etcd.io/etcd/server/v3"}
"""The module that has the program itself."""
NO_GO = (
    "Go is missing, so kube-apiserver and etcd cannot be built, and no test of the Kubernetes "
    "backend runs. Go 1.26 is at https://go.dev/dl; older ones with GOTOOLCHAIN=auto fetch it."
)


def version_of(name: str) -> str:
    """Return the version that the program's go.mod requires."""
    module = re.escape(SOURCES[name])
    found = re.search(rf"{module} (v\S+)", (MODULES[name] / "go.mod").read_text())
    assert found is not None
    return found[1]


def find(name: str) -> Path | None:
    """Return the program on PATH or in the cache; `None` if it is to be built."""
    if found := shutil.which(name):
        return Path(found)
    cached = CACHE / f"{name}-{version_of(name)}"
    return cached if cached.exists() else None


def build(name: str) -> None:
    """Build the program into the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / f"{name}-{version_of(name)}"
    partial = target.with_suffix(f".{os.getpid()}")
    say(f"building {name} {version_of(name)} (kube-apiserver takes minutes) into {target} ...")
    command = ["nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), "."]
    subprocess.run(command, cwd=MODULES[name], check=True)
    partial.replace(target)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> int:
    """Return the exit status."""
    missing = [name for name in MODULES if find(name) is None]
    if missing and shutil.which("go") is None:
        say(NO_GO)
        return 0
    for name in missing:
        build(name)
    helm.find()
    if crds.definitions() is None:
        say("Go is missing, so objects of Prometheus, KEDA and the Gateway API are not checked.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
