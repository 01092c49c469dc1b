"""Downloads that break off."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.program import app
from runtime.ids import new_uuid

WHOLE = b"x" * 1_000_000


class Broken(BaseHTTPRequestHandler):
    """The API, and a server of objects whose connection breaks after half of ``/half``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_half = self.path == "/half"
        if is_half or self.path == "/whole":
            self._respond(WHOLE, WHOLE[:500_000] if is_half else WHOLE)
            self.close_connection = True
            return
        name = "half" if self.server.server_port in BREAKING else "whole"
        document = {"presignedUrl": f"http://127.0.0.1:{self.server.server_port}/{name}"}
        text = json.dumps(document).encode()
        self._respond(text, text)

    def _respond(self, announced: bytes, sent: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(announced)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


BREAKING: set[int] = set()
"""Ports of servers whose downloads break."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_that_breaks_off_fails_and_leaves_what_was_there(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    env = {"GATEWAY_API_URL": f"http://127.0.0.1:{server.server_port}", "GATEWAY_API_KEY": "k"}
    cli, file = CliRunner(env=env), tmp_path / "file"
    command = ["assets", "download", new_uuid(), str(file)]
    BREAKING.add(server.server_port)
    for before in ([], [file]):
        failed = cli.invoke(app, command)
        assert failed.exit_code == 1, failed.output
        assert "the download failed" in failed.stderr
        assert list(tmp_path.iterdir()) == before
        file.write_bytes(b"before")
    assert cli.invoke(app, command).exit_code == 1
    assert file.read_bytes() == b"before"
    BREAKING.clear()
    assert cli.invoke(app, command).exit_code == 0
    assert file.read_bytes() == WHOLE
    assert list(tmp_path.iterdir()) == [file]
