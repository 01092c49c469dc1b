"""Objects of a gigabyte through every program: what each one's memory grows by.

    python -m loadtests.objects [--megabytes 1000]

An asset goes up through its signed URL, is the input of a call, and comes down again; a detached
call's response is stored and fetched; a response of NVCF's polling routes is stored as a zip and
downloaded. Prints for each the rate, and of each program the CPU and by how much its resident
memory grew at its peak. Exit code 1: bytes differ, or a program grew by more than 64 MiB.
"""

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import httpx

from loadtests.proc import tree
from tests.support.raw_server import HEALTHY, Peer, RawServer
from tests.support.stack import Stack, register

MAX_GROWTH_MIB = 64
_PIECE = bytes(range(256)) * 4096
_CREATED = {"contentType": "video/mp4", "description": "a film"}
_UPLOAD = {"content-type": "video/mp4", "x-amz-meta-nvcf-asset-description": "a film"}
_PATIENCE_S = 300.0


def kib(pid: int, name: str) -> int:
    """Return a line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def pieces(count: int, number: int) -> bytes:
    """Return piece ``number`` of a body of ``count``; no two are the same."""
    assert number < count
    return number.to_bytes(8, "big") + _PIECE[8:]


def digest_of_body(count: int) -> str:
    """Return the digest of a body of ``count`` pieces."""
    digest = hashlib.sha256()
    for number in range(count):
        digest.update(pieces(count, number))
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Watched:
    """Growth and CPU of programs while a block runs."""

    most_mib = 0.0

    def __init__(self, what: str, programs: dict[str, int], size: int) -> None:
        self._what = what
        self._programs = programs
        self._size = size

    def __enter__(self) -> Self:
        self._before: dict[str, list[tuple[int, int, float]]] = {}
        for name, pid in self._programs.items():
            for process in tree((pid,)):
                # The peak begins again.
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
                before = (process.pid, kib(process.pid, "VmRSS"), process.cpu_s)
                self._before.setdefault(name, []).append(before)
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self._began
        shown = [f"{self._what}: {self._size / 1e6 / seconds:,.0f} MB/s"]
        for name, before in self._before.items():
            now = {process.pid: process for process in tree((self._programs[name],))}
            used_s = sum(now[pid].cpu_s - cpu for pid, _, cpu in before)
            peak_mib = max(kib(pid, "VmHWM") for pid, _, _ in before) / 1024
            grown_mib = max(kib(pid, "VmHWM") - rss for pid, rss, _ in before) / 1024
            Watched.most_mib = max(Watched.most_mib, grown_mib)
            shown.append(
                f"{name} CPU {used_s:.1f} s, peak RSS {peak_mib:.0f} MiB (+{grown_mib:.1f})"
            )
        print("; ".join(shown), flush=True)


class Film:
    """An inference server: it responds with a long body, or the digest of its input asset."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.server = RawServer(self._serve)

    async def _serve(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            if b" /health " in head:
                await peer.send(HEALTHY)
                continue
            named = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
            lines = {name.lower(): value for name, _, value in named}
            await peer.reader.readexactly(int(lines.get(b"content-length", 0)))
            if b"nvcf-function-asset-ids" in lines:
                folder = Path(lines[b"nvcf-asset-dir"].decode())
                asset = folder / lines[b"nvcf-function-asset-ids"].decode()
                digest = await asyncio.to_thread(digest_of_file, asset)
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n" + digest.encode())
                continue
            length = self._count * len(_PIECE)
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length)
            for number in range(self._count):
                await peer.send(pieces(self._count, number))


class Measurement:
    """A gateway, an agent and what goes through them. ``is_right``: every byte was, so far."""

    def __init__(self, stack: Stack, folder: Path, count: int) -> None:
        self._stack = stack
        self._folder = folder
        self._count = count
        self._size = count * len(_PIECE)
        self._wanted = digest_of_body(count)
        self._film = Film(count)
        self._programs: dict[str, int] = {}
        self.is_right = True

    async def run(self) -> None:
        """Print the figures."""
        folder = self._folder
        await self._film.server.start()
        gateway = await asyncio.to_thread(
            self._stack.gateway,
            ROLES="invocation,api",
            CONTROL__SECRETS_KEY_FILE=str(folder / "master.key"),
            OBJECTS__FOLDER=str(folder / "objects"),
        )
        agent = await asyncio.to_thread(
            self._stack.agent,
            INFERENCE__PORT=str(self._film.server.port),
            INFERENCE__ASSET_DIR=str(folder / "assets"),
            INFERENCE__LARGE_OUTPUT_DIR=str(folder / "output"),
        )
        self._programs = {"gateway": gateway.program.pid, "agent": agent.pid}
        key = {"authorization": gateway.headers["authorization"]}
        async with (
            httpx.AsyncClient(timeout=_PATIENCE_S) as self._anyone,
            httpx.AsyncClient(base_url=gateway.url, headers=key, timeout=_PATIENCE_S) as self._api,
            gateway.client() as self._function,
        ):
            self._function.timeout = _PATIENCE_S
            await self._asset()
            await self._stored_response()
            await self._large_response()
        self._film.server.stop()

    async def _asset(self) -> None:
        made = (await self._api.post("/v2/nvcf/assets", json=_CREATED)).json()
        with self._watched("asset up"):
            headers = {**_UPLOAD, "content-length": str(self._size)}
            sent = await self._anyone.put(made["uploadUrl"], content=self._body(), headers=headers)
            sent.raise_for_status()
        named = {"nvcf-input-asset-references": made["assetId"]}
        with self._watched("asset as input of a call"):
            self._check("input", (await self._function.post("/", headers=named)).text)
        path = f"/v2/nvcf/assets/{made['assetId']}"
        url = (await self._api.get(f"{path}/content-redirect")).json()["presignedUrl"]
        with self._watched("asset down"):
            self._check("asset", await _digest_of(self._anyone, url))
        (await self._api.delete(path)).raise_for_status()

    async def _stored_response(self) -> None:
        client = self._function
        with self._watched("detached call's response stored"):
            accepted = await client.post("/", headers={"prefer": "respond-async"})
            location = accepted.headers["location"]
            async with client.stream("GET", f"{location}/events") as events:
                shown = [line async for line in events.aiter_lines() if line.startswith("event")]
        assert shown[-1:] == ["event: done"], shown[-3:]
        with self._watched("stored response fetched"):
            self._check("stored response", await _digest_of(client, f"{location}/response"))
        (await client.delete(location)).raise_for_status()

    async def _large_response(self) -> None:
        path = f"/v2/nvcf/pexec/functions/{self._stack.demo.function_id}"
        waits = {"nvcf-poll-seconds": "300"}
        with self._watched("large response stored as a zip"):
            large = await self._api.post(path, json={}, headers=waits)
        assert large.status_code == 302, large.text
        zipped = self._folder / "zip"
        with self._watched("zip down"), zipped.open("wb") as file:
            async with self._anyone.stream("GET", large.headers["location"]) as stream:
                async for piece in stream.aiter_raw(1_000_000):
                    file.write(piece)
        with zipfile.ZipFile(zipped) as archive, archive.open(archive.namelist()[0]) as response:
            digest = hashlib.sha256()
            while piece := response.read(1_000_000):
                digest.update(piece)
        self._check("zip", digest.hexdigest())

    def _watched(self, what: str) -> Watched:
        return Watched(what, self._programs, self._size)

    def _check(self, what: str, digest: str) -> None:
        if digest != self._wanted:
            print(f"{what}: the bytes differ", file=sys.stderr)
            self.is_right = False

    async def _body(self) -> AsyncIterator[bytes]:
        for number in range(self._count):
            yield pieces(self._count, number)


async def _digest_of(client: httpx.AsyncClient, url: str) -> str:
    """Download and return the digest."""
    digest = hashlib.sha256()
    async with client.stream("GET", url) as stream:
        stream.raise_for_status()
        async for piece in stream.aiter_raw(1_000_000):
            digest.update(piece)
    return digest.hexdigest()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    count = max(1, parser.parse_args().megabytes * 1_000_000 // len(_PIECE))
    with tempfile.TemporaryDirectory(prefix="objects-") as folder:
        stack = Stack(Path(folder))
        try:
            await stack.nats.start()
            stack.demo = await register(stack.nats.url)
            measurement = Measurement(stack, Path(folder), count)
            await measurement.run()
        finally:
            await stack.stop()
    print(f"most growth: {Watched.most_mib:.1f} MiB (at most {MAX_GROWTH_MIB})")
    return 0 if measurement.is_right and Watched.most_mib <= MAX_GROWTH_MIB else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
