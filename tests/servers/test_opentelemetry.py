"""An OpenTelemetry SDK in a function sends where the version's telemetries say, and says who it is.

The SDK gets nothing but the variables of its environment.
"""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.servers.environments import HERE, LOADING_S, NEEDS_SERVERS, program
from tests.support.dev import start_dev
from tests.support.waiting import PATIENCE_S, until_blocking

pytestmark = NEEDS_SERVERS

TOKEN = "t0ken, with=+ all%"


class Export(NamedTuple):
    """What an exporter sent: OTLP's protobuf, which has names as they are."""

    path: str
    authorization: str
    body: bytes


@contextmanager
def collector() -> Iterator[tuple[str, "queue.SimpleQueue[Export]"]]:
    """Run a receiver of OTLP over HTTP; yield its URL and what gets there."""
    exports: queue.SimpleQueue[Export] = queue.SimpleQueue()

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            exports.put(Export(self.path, self.headers.get("Authorization", ""), body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", exports
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_function_sends_spans_and_metrics_to_its_telemetries(tmp_path: Path) -> None:
    command = f"{program('opentelemetry', 'python')} {HERE}/apps/opentelemetry_app.py {{port}}"
    dev = start_dev(tmp_path, "--function", f"traced={command}", patience_s=LOADING_S)
    headers = {"authorization": f"Bearer {dev.ready['api_key']}"}
    try:
        with (
            collector() as (url, exports),
            httpx.Client(base_url=dev.ready["api_url"], headers=headers, timeout=PATIENCE_S) as api,
        ):
            telemetry = {
                "endpoint": url,
                "protocol": "HTTP",
                "provider": "OTEL_COLLECTOR",
                "types": ["TRACES", "METRICS"],
                "secret": {"name": "collector", "value": TOKEN},
            }
            made = api.post("/v2/nvcf/telemetries", json=telemetry).raise_for_status().json()
            telemetry_id = made["telemetry"]["telemetryId"]
            version = {
                "name": "sending",
                "inferenceUrl": "/",
                "containerImage": "traced",
                "healthUri": "/health",
                "telemetries": dict.fromkeys(
                    ("tracesTelemetryId", "metricsTelemetryId"), telemetry_id
                ),
            }
            function = api.post("/v2/nvcf/functions", json=version).raise_for_status().json()
            ids = function["function"]
            path = f"functions/{ids['id']}/versions/{ids['versionId']}"
            spec = {"gpu": "CPU", "minInstances": 1, "maxInstances": 1}
            deployed = api.post(
                f"/v2/nvcf/deployments/{path}", json={"deploymentSpecifications": [spec]}
            )
            deployed.raise_for_status()
            until_blocking(
                lambda: api.get(f"/v2/nvcf/{path}").json()["function"]["status"] == "ACTIVE",
                timeout_s=LOADING_S,
                what="the function",
            )
            assert api.post("/f/sending/", content=b"hello").text == "hello"
            found = {one.path: one for one in (exports.get(timeout=PATIENCE_S) for _ in range(2))}
            assert {one.authorization for one in found.values()} == {f"Bearer {TOKEN}"}
            assert b"run-of-the-model" in found["/v1/traces"].body
            assert b"requests-of-the-model" in found["/v1/metrics"].body
    finally:
        assert dev.program.stop() == 0
