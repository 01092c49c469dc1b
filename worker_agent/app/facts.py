"""What the agent tells the platform of itself and its machine (`docs/wire.md` §19.2)."""

import asyncio
import os
import socket

from runtime.version import program_version
from worker_agent.settings import InstanceSettings

_QUERY = "--query-gpu=name,memory.total,uuid"
_TIMEOUT_S = 10.0
"""The first call on a machine may load the driver."""
_MAX_GPUS = 64
_MAX_CHARS = 256


async def worker_facts(instance: InstanceSettings) -> dict[str, object]:
    """Return the member ``worker`` of a connect."""
    facts: dict[str, object] = {
        "node": (instance.node or socket.gethostname())[:_MAX_CHARS],
        "pid": os.getpid(),
        "agentVersion": program_version(),
        "gpus": await nvidia_gpus(),
    }
    if instance.pod:
        facts["pod"] = instance.pod[:_MAX_CHARS]
    return facts


async def nvidia_gpus(program: str = "nvidia-smi") -> list[dict[str, object]]:
    """Return the NVIDIA GPUs that this process sees; none without a driver, or if it hangs."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            _QUERY,
            "--format=csv,noheader,nounits",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return []
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return []
    return read_gpus(output.decode(errors="replace")) if process.returncode == 0 else []


def read_gpus(table: str) -> list[dict[str, object]]:
    """Return the GPUs of a table of ``nvidia-smi``; a line that is none is skipped."""
    gpus: list[dict[str, object]] = []
    for line in table.splitlines():
        name, *rest = (part.strip()[:_MAX_CHARS] for part in line.split(","))
        if not name or len(rest) != 2:
            continue
        gpu: dict[str, object] = {"name": name}
        memory, uuid = rest
        if memory.isdecimal():
            gpu["memoryMiB"] = int(memory)
        if uuid.startswith(("GPU-", "MIG-")):
            gpu["uuid"] = uuid
        gpus.append(gpu)
    return gpus[:_MAX_GPUS]
