#!/usr/bin/env bash
# LitServe: a streaming API does not start if encode_response is annotated with Iterator.
#
# Versions   litserve 0.2.19 with fastapi 0.165.0 and pydantic 2.14.4, Python 3.11.
# Set-up     The streaming API of its documentation: predict yields words, encode_response is a
#            generator that yields one dictionary for each. Four programs that differ in the return
#            annotation of encode_response alone: none, Generator[dict[str, str], None, None],
#            Iterable[dict[str, str]], Iterator[dict[str, str]]. Each of them is right to a type
#            checker; the last one is what most generators are annotated with.
# Input      One POST to each.
# Expected   Annotations change nothing, or LitServe rejects all that are no models of one response:
#            its streaming route sends what the generator yields, without a response model.
# Seen       Three answer 200 with the same three lines. The one with Iterator ends with exit code 1
#            before it listens: "fastapi.exceptions.FastAPIError: Invalid args for response field!".
#            The hint with it, response_model=None in the decorator of the path operation, is of no
#            use, as LitServe writes that decorator. The same in each of four runs.
#            LitServe passes the annotation on as that of its own endpoint, streaming or not, and
#            FastAPI makes a response model of it; pydantic knows Iterable and Generator as fields,
#            and not Iterator.
# Known      FastAPI documents that it makes models of return annotations (since 0.89). LitServe does
#            not mention that it passes them on, and we found no report of it.
# So         Leave the annotation of a streaming encode_response out, or write Generator.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about a minute.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    litserve==0.2.19 fastapi==0.165.0 pydantic==2.14.4
cat > "$work/app.py" <<'PY'
import sys
from collections.abc import Generator, Iterable, Iterator

import litserve


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, request: dict[str, str]) -> Iterator[str]:
        yield from request["prompt"].split()


class Bare(Api):
    def encode_response(self, output: Iterator[str]):
        yield from ({"word": word} for word in output)


class WithGenerator(Api):
    def encode_response(self, output: Iterator[str]) -> Generator[dict[str, str], None, None]:
        yield from ({"word": word} for word in output)


class WithIterable(Api):
    def encode_response(self, output: Iterator[str]) -> Iterable[dict[str, str]]:
        yield from ({"word": word} for word in output)


class WithIterator(Api):
    def encode_response(self, output: Iterator[str]) -> Iterator[dict[str, str]]:
        yield from ({"word": word} for word in output)


APIS = {"none": Bare, "Generator": WithGenerator, "Iterable": WithIterable, "Iterator": WithIterator}

if __name__ == "__main__":
    server = litserve.LitServer(APIS[sys.argv[1]](stream=True), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
PY
cat > "$work/probe.py" <<'PY'
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from importlib.metadata import version
from socket import create_server

LIMIT_S = 120
ANSWERED = '{"word": "a"}\n{"word": "b"}\n{"word": "c"}\n'


def ask(port: int) -> str | None:
    """Return the body of the response, None while nothing answers."""
    try:
        url, body = f"http://127.0.0.1:{port}/predict", b'{"prompt": "a b c"}'
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read().decode()
    except OSError:
        return None


def run(annotation: str, folder: str) -> str:
    """Return what the server answered, or how it ended."""
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    log = os.path.join(folder, "log")
    with open(log, "w") as output:
        server = subprocess.Popen(
            [sys.executable, os.path.join(folder, "app.py"), annotation, str(port)],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until, answer = time.monotonic() + LIMIT_S, None
        while answer is None and server.poll() is None and time.monotonic() < until:
            time.sleep(0.3)
            answer = ask(port)
    finally:
        code = server.poll()
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    if answer is not None:
        return answer
    errors = [line for line in open(log) if line.startswith("fastapi.exceptions.FastAPIError")]
    return f"exit code {code}, {errors[-1].split('!')[0] if errors else 'no error of FastAPI'}"


print(*(f"{name} {version(name)}" for name in ("litserve", "fastapi", "pydantic")), sep=", ")
seen = {name: run(name, sys.argv[1]) for name in ("none", "Generator", "Iterable", "Iterator")}
for name, answer in seen.items():
    print(f"{name}: {answer!r}")
error = "exit code 1, fastapi.exceptions.FastAPIError: Invalid args for response field"
expected = dict.fromkeys(("none", "Generator", "Iterable"), ANSWERED) | {"Iterator": error}
sys.exit(0 if seen == expected else 1)
PY
"$work/venv/bin/python" "$work/probe.py" "$work"
