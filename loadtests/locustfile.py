"""Mixed load for locust: chat, token streams, uploads, and clients that hang up.

    gateway dev --port 0 --ready-file ready.json --concurrency 256 \\
        --inference-command "python -m loadtests.peers.inference --port {port}"
    READY_FILE=ready.json locust -f loadtests/locustfile.py --headless -u 50 -r 10 -t 1m

Locust costs several hundred µs of CPU per request: use it to find errors under a mix of requests,
and `loadtests.run` for figures.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task
from locust.exception import StopUser

_READY: dict[str, str] = json.loads(Path(os.environ["READY_FILE"]).read_text())
_CHAT = "/v1/chat/completions"
_LARGEST_UPLOAD_BYTES = 4_000_000
_UPLOAD = os.urandom(_LARGEST_UPLOAD_BYTES)


def _question(*, stream: bool) -> dict[str, Any]:
    return {
        "model": "bench",
        "stream": stream,
        "messages": [{"role": "user", "content": "word " * random.randint(5, 500)}],
    }


class Caller(HttpUser):
    """The common part of all users: the function's address and the API key."""

    abstract = True
    host = _READY["invocation_url"]
    wait_time = between(0.1, 1.0)

    def on_start(self) -> None:
        self.client.headers["authorization"] = f"Bearer {_READY['api_key']}"
        self.client.headers["function-id"] = _READY["function_id"]
        with self.client.get("/health", name="first call", catch_response=True) as response:
            if response.status_code == 401:
                response.failure("the key is refused")
                raise StopUser

    def tokens(self, name: str, give_up_after: int | None) -> None:
        """Read a stream up to ``[DONE]``, or hang up after ``give_up_after`` tokens."""
        started = time.perf_counter()
        count = 0
        with self.client.post(
            _CHAT, json=_question(stream=True), name=name, stream=True, catch_response=True
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            for line in response.iter_lines():
                if not line:
                    continue
                if line == b"data: [DONE]":
                    response.success()
                    return
                count += 1
                if count == 1:
                    _first_token(name, time.perf_counter() - started)
                if count == give_up_after:
                    response.close()
                    response.success()
                    return
            response.failure(f"the stream ended without [DONE] after {count} tokens")


def _first_token(name: str, elapsed_s: float) -> None:
    events.request.fire(  # type: ignore[no-untyped-call]
        request_type="first token",
        name=name,
        response_time=elapsed_s * 1e3,
        response_length=0,
        exception=None,
        context={},
    )


class Chat(Caller):
    """A small JSON request with a small JSON response."""

    weight = 5

    @task
    def ask(self) -> None:
        self.client.post(_CHAT, json=_question(stream=False), name="chat")


class Stream(Caller):
    """A token stream that is read to its end."""

    weight = 4

    @task
    def listen(self) -> None:
        self.tokens("stream", give_up_after=None)


class Impatient(Caller):
    """Hangs up in mid-stream: the worker must be notified, and later callers be unaffected."""

    weight = 2

    @task
    def leave(self) -> None:
        self.tokens("stream, hung up", give_up_after=random.randint(1, 20))


class Upload(Caller):
    """Bodies smaller and larger than the 32 KiB that fit into the envelope."""

    weight = 1

    @task
    def send(self) -> None:
        body = _UPLOAD[: int(10 ** random.uniform(3, 6.6))]
        with self.client.post("/upload", data=body, catch_response=True) as response:
            if response.status_code == 200 and response.json()["received"] != len(body):
                response.failure(f"{response.json()['received']} of {len(body)} bytes arrived")
