"""An asset of a gigabyte up and down, through signed URLs of a gateway on this machine.

    python -m loadtests.objects [--megabytes 1000]

Prints the rate of each direction, the CPU of the gateway, and by how much its resident memory grew
at its peak. Exit code 1: the bytes differ, or it grew by more than 64 MiB.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx

from loadtests.proc import all_stats, argv_of, descendants
from tests.support.dev import start_dev

MAX_GROWTH_MIB = 64
_PIECE = bytes(range(256)) * 4096
_HEADERS = {"content-type": "video/mp4", "x-amz-meta-nvcf-asset-description": "a film"}


def gateways(pid: int) -> list[int]:
    """Return the processes that serve, among the descendants of a `gateway dev`."""
    return [one.pid for one in descendants(all_stats(), [pid]) if "serve" in argv_of(one.pid)]


def kib(pid: int, name: str) -> int:
    """Return a line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watched:
    """Growth and CPU of processes while a block runs."""

    def __init__(self, what: str, pids: list[int], size: int) -> None:
        self._what = what
        self._pids = pids
        self._size = size
        self.growth_mib = 0.0

    def __enter__(self) -> Self:
        for pid in self._pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # The peak begins again.
        self._before = [(kib(pid, "VmRSS"), cpu_s(pid)) for pid in self._pids]
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self._began
        used = sum(cpu_s(pid) for pid in self._pids) - sum(cpu for _, cpu in self._before)
        grown = [
            kib(pid, "VmHWM") - rss for pid, (rss, _) in zip(self._pids, self._before, strict=True)
        ]
        self.growth_mib = max(grown) / 1024
        rate = self._size / 1e6 / seconds
        print(
            f"{self._what}: {rate:,.0f} MB/s, gateway CPU {used:.1f} s, "
            f"peak RSS +{self.growth_mib:.1f} MiB"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    count = max(1, parser.parse_args().megabytes * 1_000_000 // len(_PIECE))
    size, sent, received = count * len(_PIECE), hashlib.sha256(), hashlib.sha256()

    def body() -> Iterator[bytes]:
        for number in range(count):
            piece = number.to_bytes(8, "big") + _PIECE[8:]
            sent.update(piece)
            yield piece

    with tempfile.TemporaryDirectory() as folder:
        dev = start_dev(Path(folder), "--data-dir", folder)
        try:
            pids = gateways(dev.program.process.pid)
            key = {"authorization": f"Bearer {dev.ready['api_key']}"}
            with httpx.Client(base_url=dev.ready["api_url"], headers=key, timeout=60) as api:
                made = api.post(
                    "/v2/nvcf/assets", json={"contentType": "video/mp4", "description": "a film"}
                ).json()
                up = Watched("up", pids, size)
                with up:
                    headers = {**_HEADERS, "content-length": str(size)}
                    response = httpx.put(
                        made["uploadUrl"], content=body(), headers=headers, timeout=60
                    )
                    response.raise_for_status()
                path = f"/v2/nvcf/assets/{made['assetId']}/content-redirect"
                url = api.get(path).json()["presignedUrl"]
            down = Watched("down", pids, size)
            with down, httpx.stream("GET", url, timeout=60) as stream:
                for piece in stream.iter_raw(1_000_000):
                    received.update(piece)
        finally:
            dev.program.stop()
    is_same = sent.digest() == received.digest()
    if not is_same:
        print("The bytes differ.", file=sys.stderr)
    return 0 if is_same and max(up.growth_mib, down.growth_mib) <= MAX_GROWTH_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
