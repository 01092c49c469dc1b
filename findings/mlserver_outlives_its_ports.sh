#!/usr/bin/env bash
# MLServer: one that cannot get its metrics port neither serves nor ends, and SIGTERM does not end it.
#
# Versions   mlserver 1.7.1, uvloop 0.21.0, Python 3.11.
# Set-up     The example of its documentation: a runtime of ten lines, a model-settings.json, and
#            `mlserver start .`. Another program listens on the port of the metrics, as a second
#            MLServer on the machine does: the port is 8082 for each unless it is set.
# Input      None: the start alone. Then one SIGTERM.
# Expected   It serves without metrics, or it ends with an exit code, as uvicorn alone does (3).
# Seen       Its log says "address already in use", with a traceback that ends in SystemExit: 3. The
#            HTTP port is refused, and the process lives on: a minute later, and after a SIGTERM too.
#            To all appearance uvicorn's sys.exit leaves the event loop, so that nobody tells the
#            process of the inference worker to end, and Python's own end waits for it.
# Known      We found no report of it.
# So         Set MLSERVER_METRICS_PORT and MLSERVER_GRPC_PORT (0: any free port) wherever two may run on
#            one machine, limit the time of a start, and end such a server with SIGKILL, as the gateway
#            does when an instance was not healthy in time.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about two minutes, or more on a
# busy machine.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlserver==1.7.1 uvloop==0.21.0
mkdir "$work/models"
cat > "$work/models/double.py" <<'PY'
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Double(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        array = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("doubled", array * 2)]
        )
PY
echo '{"name": "double", "implementation": "double.Double"}' > "$work/models/model-settings.json"
cat > "$work/probe.py" <<'PY'
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from socket import create_server

LIMIT_S = 60


def ask(port: int) -> int:
    """Return the status of the liveness check, 0 without a response."""
    try:
        url = f"http://127.0.0.1:{port}/v2/health/live"
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def main(folder: str) -> int:
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    program = os.path.join(os.path.dirname(sys.executable), "mlserver")
    log = os.path.join(folder, "log")
    with create_server(("0.0.0.0", 0)) as taken, open(log, "w") as output:
        ports = {
            "MLSERVER_HTTP_PORT": port,
            "MLSERVER_GRPC_PORT": 0,
            "MLSERVER_METRICS_PORT": taken.getsockname()[1],
        }
        server = subprocess.Popen(
            [program, "start", folder],
            env={**os.environ, **{name: str(value) for name, value in ports.items()}},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            while "address already in use" not in open(log).read() and server.poll() is None:
                time.sleep(0.2)
            until = time.monotonic() + LIMIT_S
            while time.monotonic() < until and server.poll() is None:
                time.sleep(0.2)
            live, code = ask(port), server.poll()
            server.terminate()
            try:
                after_term = str(server.wait(10))
            except subprocess.TimeoutExpired:
                after_term = "still runs"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    print(
        f"mlserver {version('mlserver')}, uvloop {version('uvloop')}: {LIMIT_S} s after the error "
        f"exit code {code}, /v2/health/live {live or 'refused'}; 10 s after SIGTERM: {after_term}"
    )
    return 0 if (code, live, after_term) == (None, 0, "still runs") else 1


sys.exit(main(sys.argv[1]))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/models"
