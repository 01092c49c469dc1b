"""``systemctl enable --now UNIT...`` without systemd: runs the units' commands as this user.

Only what a unit needs to run is read: EnvironmentFile, ExecStartPre and ExecStart. Its paths are
below DESTDIR, its programs those of this virtual environment. PLAYED_PORTS are pairs ``8080=12345``
of ports to use in place of the usual ones. Each process that is started is a line of
``DESTDIR/pids``.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.deploy_files import environment_file

ROOT = Path(os.environ.get("DESTDIR", "/"))
PROGRAMS = Path(sys.executable).parent
STATE = "/var/lib/invocation-gateway"


def moved(text: str) -> str:
    """Return a text with this machine's paths and ports in place of the usual ones."""
    text = text.replace("/opt/invocation-gateway/bin", str(PROGRAMS))
    text = re.sub(rf"({STATE}|/etc/)", rf"{ROOT}\1", text)
    for pair in os.environ["PLAYED_PORTS"].split(","):
        usual, _, own = pair.partition("=")
        text = re.sub(rf":{usual}\b", f":{own}", text)
    return text


def start(unit: str) -> None:
    """Start one unit, ``name@instance`` from its template."""
    name, _, instance = unit.partition("@")
    file = ROOT / "etc/systemd/system" / f"{name}{'@' if instance else ''}.service"
    text = file.read_text().replace("%i", instance)
    (environment,) = re.findall(r"^EnvironmentFile=(.+)$", text, re.MULTILINE)
    own = environment_file(Path(moved(environment)))
    environ = os.environ | {key: moved(value) for key, value in own.items()}
    state = ROOT / STATE.lstrip("/")
    state.mkdir(parents=True, exist_ok=True)
    for command in re.findall(r"^ExecStartPre=(.+)$", text, re.MULTILINE):
        subprocess.run(shlex.split(moved(command)), env=environ, cwd=state, check=True)
    (command,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    with (ROOT / f"{unit}.log").open("wb") as log:
        process = subprocess.Popen(
            shlex.split(moved(command)),
            env=environ,
            cwd=state,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    with (ROOT / "pids").open("a") as pids:
        pids.write(f"{process.pid}\n")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if argument not in {"enable", "--now"}:
            start(argument)
