"""The installed load generator, wrk or h2load: its command line and its report."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from loadtests.errors import MeasurementError
from loadtests.systems import Target

HOW_TO_GET = (
    "The throughput row needs wrk or h2load: `apt-get install wrk` or "
    "`apt-get install nghttp2-client`."
)


class Summary(NamedTuple):
    """The result of a generator's run. ``failures`` is a text, empty if there were none."""

    requests: int
    requests_per_s: float
    failures: str


def find() -> str | None:
    """Return the path of wrk, else that of h2load, else `None`."""
    return shutil.which("wrk") or shutil.which("h2load")


class PostRequest(NamedTuple):
    """The request that the generator repeats."""

    path: str
    content_type: str
    body: bytes


def measure(
    binary: str,
    target: Target,
    post: PostRequest,
    connections: int,
    duration_s: int,
    folder: Path,
    streams: int = 0,
) -> Summary:
    """Run the generator with one thread. Raises MeasurementError.

    ``streams``: so many at a time on each connection, over HTTP/2, which only h2load speaks.
    """
    arguments = _wrk if Path(binary).name == "wrk" else _h2load
    command = [binary, *arguments(target, post, connections, duration_s, folder)]
    if streams:
        command[1:2] = [f"-m{streams}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=duration_s + 60, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"{binary} did not end") from error
    parse = parse_wrk if Path(binary).name == "wrk" else parse_h2load
    if done.returncode != 0:
        raise MeasurementError(f"{binary} ended with {done.returncode}: {done.stderr.strip()}")
    return parse(done.stdout)


def _wrk(
    target: Target, post: PostRequest, connections: int, duration_s: int, folder: Path
) -> list[str]:
    script = folder / "post.lua"
    text = post.body.decode().replace("]=]", "")
    script.write_text(f'wrk.method = "POST"\nwrk.body = [=[{text}]=]\n')
    url = f"http://{target.authority}{post.path}"
    options = ["-t1", f"-c{connections}", f"-d{duration_s}s", "--timeout", "10s"]
    return [*options, "-s", str(script), *_headers(target, post), url]


def _h2load(
    target: Target, post: PostRequest, connections: int, duration_s: int, folder: Path
) -> list[str]:
    body = folder / "post.body"
    body.write_bytes(post.body)
    url = f"http://{target.authority}{post.path}"
    options = ["--h1", "-t1", f"-c{connections}", "-D", str(duration_s), "-d", str(body)]
    return [*options, *_headers(target, post), url]


def _headers(target: Target, post: PostRequest) -> list[str]:
    pairs = [("content-type", post.content_type), *target.headers]
    return [word for name, value in pairs for word in ("-H", f"{name}: {value}")]


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise MeasurementError(f"the generator did not say {pattern!r}:\n{text[-800:]}")
    return float(found[1])


def parse_wrk(text: str) -> Summary:
    """Parse wrk's report, in which lines about failures appear only if there were any."""
    wrong = []
    if found := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        wrong.append(f"{found[1]} answers that are not 2xx")
    if found := re.search(r"Socket errors: (.+)", text):
        wrong.append(f"socket errors: {found[1]}")
    requests = int(_number(r"(\d+) requests in ", text))
    if requests == 0:
        wrong.append("no answers")
    return Summary(requests, _number(r"Requests/sec:\s+([\d.]+)", text), "; ".join(wrong))


def parse_h2load(text: str) -> Summary:
    """Parse h2load's report. Requests cut off at the end of the duration are not failures."""
    wrong = [
        f"{count:.0f} {kind}"
        for kind in ("failed", "errored", "timeout")
        if (count := _number(rf"requests: .*?(\d+) {kind}", text))
    ]
    requests = int(_number(r"requests: .*?(\d+) succeeded", text))
    good = int(_number(r"status codes: (\d+) 2xx", text))
    if good < requests:
        wrong.append(f"{requests - good} answers that are not 2xx")
    if requests == 0:
        wrong.append("no answers")
    return Summary(requests, _number(r"finished in .*?, ([\d.]+) req/s", text), "; ".join(wrong))
