"""A model server that sends a span and a metric for each request, as its environment says."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

trace.set_tracer_provider(TracerProvider())
provider = trace.get_tracer_provider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
tracer = trace.get_tracer("opentelemetry_app")
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
requests = meters.get_meter("opentelemetry_app").create_counter("requests-of-the-model")


class Infer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._respond(b"ok")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with tracer.start_as_current_span("run-of-the-model"):
            requests.add(1)
        meters.force_flush()
        self._respond(body)

    def _respond(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Infer).serve_forever()
