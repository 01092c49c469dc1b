"""An inference server that starts quickly and fails on request, as a separate process.

``--exit CODE`` prints a line and exits at once. ``--stubborn`` ignores SIGTERM. ``--child`` leaves
a child process behind that ignores SIGTERM too, and writes its pid to the file ``$CHILD_FILE``.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nOK\n")
    await writer.drain()
    writer.close()


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port)
    _say(f"listening on {port}")
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--exit", type=int)
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.exit is not None:
        secrets = Path(os.environ["NVCF_SECRETS_FILE"]).read_text()
        _say(f"no CUDA device; the secrets are {secrets}")
        sys.exit(options.exit)
    if options.child:
        lines = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", lines])
        Path(os.environ["CHILD_FILE"]).write_text(str(child.pid))
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(_serve(options.port))


if __name__ == "__main__":
    main()
