"""The chart's job that makes Secrets, against an API server that keeps them."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.api.secrets.master_key import key_of
from gateway.auth.bootstrap import is_secret
from tests.support.deploy_files import make_secrets as job


class ApiServer(ThreadingHTTPServer):
    """The Secrets of one namespace. It refuses to change one, and everybody without the token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secrets: dict[str, dict] = {}
        self.is_hiding = False
        """As if the Secret were made between the look and the creation."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/v1/namespaces/n/secrets"


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self._respond(200 if name in self.server.secrets and not self.server.is_hiding else 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = body["metadata"]["name"]
        if name in self.server.secrets:
            return self._respond(409)
        self.server.secrets[name] = body
        return self._respond(201)

    def _respond(self, status: int) -> None:
        if self.headers["authorization"] != "Bearer right":
            status = 403
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_the_secrets_are_those_that_the_gateway_takes(server: ApiServer) -> None:
    job.ensure(job.Api(server.url, "right"), "s", job.own_secrets, {"a": "b"})
    secret = server.secrets["s"]
    assert secret["metadata"]["labels"] == {"a": "b"}
    data = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    assert len(key_of(data["master.key"], "")) == 32
    assert is_secret(data["bootstrap-secret"].decode())


@pytest.mark.parametrize("is_hiding", [False, True])
def test_a_secret_that_exists_is_never_changed(server: ApiServer, *, is_hiding: bool) -> None:
    api = job.Api(server.url, "right")
    first = job.ensure(api, "s", job.own_secrets, {})
    before = dict(server.secrets)
    server.is_hiding = is_hiding
    second = job.ensure(api, "s", job.own_secrets, {})
    assert server.secrets == before
    assert "created" in first
    assert ("another job" if is_hiding else "left") in second


def test_missing_rights_end_the_job(server: ApiServer) -> None:
    with pytest.raises(OSError, match="403"):
        job.ensure(job.Api(server.url, "wrong"), "s", job.own_secrets, {})
