"""Run h2spec against a gateway: ``python -m tests.conformance.run``.

h2spec is a Go program; it is built once, into a folder of its own. Where Go is missing this says so
and ends with 0. Exit status 1: a case failed that is expected to pass, or the other way round.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.support.certificates import Authority
from tests.support.stack import running_stack

MODULE = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
FOLDER = Path(__file__).resolve().parents[2] / ".gateway" / "conformance"
TIMEOUT_S = 5
# A client of a port without TLS that begins with neither protocol gets 400 as HTTP/1.1.
NOT_WITHOUT_TLS = {"Sends invalid connection preface"}


def build() -> Path | None:
    """Return the program, `None` without Go."""
    program = FOLDER / "h2spec"
    if not program.exists():
        if shutil.which("go") is None:
            return None
        print(f"building {MODULE} into {FOLDER} ...", flush=True)
        env = {**os.environ, "GOBIN": str(FOLDER)}
        subprocess.run(["go", "install", MODULE], env=env, check=True)
    return program


def failed_cases(program: Path, address: str, *more: str) -> set[str]:
    """Run all cases against an address; return those that failed."""
    host, _, port = address.rpartition(":")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [program, "-h", host, "-p", port, "-P", "/health", "-o", str(TIMEOUT_S)]
        found = subprocess.run(
            [*command, "--strict", "-j", report, *more], capture_output=True, text=True, check=False
        )
        if not report.exists():
            sys.exit(f"h2spec has ended without a report:\n{found.stdout}{found.stderr}")
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    print(f"{address} {' '.join(more)}: {len(cases)} cases", flush=True)
    if len(cases) < 140:
        sys.exit("h2spec has left out cases")
    failed = [one for one in cases if {"failure", "error"} & {part.tag for part in one}]
    return {one.attrib["classname"] for one in failed}


async def run(program: Path) -> int:
    """Return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Authority(Path(folder)).issue("gateway", "localhost")
        settings = {"LISTEN": "127.0.0.1:0", "CERTIFICATES": str(chain), "KEYS": str(key)}
        async with running_stack() as stack:
            started = stack.starting_gateway(
                **{f"TLS__{name}": value for name, value in settings.items()}
            )
            secure, plain = started.wait_event("gateway.ready")["listen"]
            with_tls = await asyncio.to_thread(failed_cases, program, secure, "-t", "-k")
            without_tls = await asyncio.to_thread(failed_cases, program, plain)
    for name in sorted(with_tls | (without_tls ^ NOT_WITHOUT_TLS)):
        print(f"not as expected: {name}")
    return int(bool(with_tls) or without_tls != NOT_WITHOUT_TLS)


def main() -> int:
    """Return the exit status."""
    program = build()
    if program is None:
        print("Go is missing, so h2spec is not run. On Debian and Ubuntu: apt-get install golang")
        return 0
    status = asyncio.run(run(program))
    print("as expected" if not status else "NOT as expected")
    return status


if __name__ == "__main__":
    sys.exit(main())
