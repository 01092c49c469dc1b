#!/usr/bin/env bash
# langchain-nvidia-ai-endpoints: after a 202 the key for your own server goes to NVIDIA's.
#
# Versions   langchain-nvidia-ai-endpoints 1.5.0, Python 3.11.
# Set-up     A server on loopback that responds to chat completions with 202 and NVCF-REQID, as NVCF does
#            for a call that takes long. ChatNVIDIA with that server as base_url. HTTPS_PROXY names a
#            listener on loopback, which writes down whom the client wants to reach and refuses it.
# Input      One invoke.
# Expected   The client asks the server of base_url for the response, or fails.
# Seen       It asks api.nvcf.nvidia.com, with the API key of the other server in Authorization (the proxy
#            sees the host, the source the header): polling_url_tmpl is a constant that base_url does not
#            change. ChatNVIDIA has no parameter for it.
# So         Set polling_url_tmpl of `_client` and `_async_client` before the first call, or never respond
#            to such a client with 202.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about a minute.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check langchain-nvidia-ai-endpoints==1.5.0
cat > "$work/probe.py" <<'PY'
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

wanted: list[str] = []


class Own(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.respond(200, b'{"data": [{"id": "m"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.respond(202, b"{}")

    def respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("NVCF-REQID", "11111111-1111-4111-8111-111111111111")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Proxy(Own):
    def do_CONNECT(self) -> None:
        wanted.append(self.path)
        self.send_error(403)


def serve(handler: type[BaseHTTPRequestHandler]) -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


own = serve(Own)
os.environ.update(HTTPS_PROXY=serve(Proxy), NO_PROXY="127.0.0.1", NVIDIA_USAGE_TELEMETRY_ENABLED="0")

from langchain_nvidia_ai_endpoints import ChatNVIDIA

try:
    ChatNVIDIA(base_url=f"{own}/v1", api_key="own-key", model="m").invoke("hello")
except Exception as error:
    print(type(error).__name__)
print("wanted to reach:", wanted)
sys.exit(0 if "api.nvcf.nvidia.com:443" in wanted else 1)
PY
"$work/venv/bin/python" "$work/probe.py"
