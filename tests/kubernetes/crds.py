"""Definitions of the custom resources that the chart uses, from the Go modules of their makers."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

MODULES = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_servicemonitors", "monitoring.coreos.com_prometheusrules"),
    ),
    "sigs.k8s.io/gateway-api@v1.4.1": (
        "config/crd/standard",
        ("gateway.networking.k8s.io_httproutes", "gateway.networking.k8s.io_grpcroutes"),
    ),
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases", ("keda.sh_scaledobjects",)),
}
"""Folder and names of the files in each module."""


def definitions() -> list[dict[str, Any]] | None:
    """Return the definitions; `None` without Go. Modules are downloaded once, by Go itself."""
    if shutil.which("go") is None:
        return None
    found = []
    for module, (folder, names) in MODULES.items():
        command = ["go", "mod", "download", "-json", module]
        # Outside of our own modules, whose go.mod would have to require it.
        done = subprocess.run(command, cwd="/", capture_output=True, check=True)
        root = Path(json.loads(done.stdout)["Dir"])
        found += [yaml.safe_load((root / folder / f"{name}.yaml").read_text()) for name in names]
    return found
