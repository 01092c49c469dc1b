"""Callers as they are: chat, token streams, uploads, and people who give up. For locust.

    gateway dev --port 0 --ready-file ready.json --concurrency 256 \\
        --inference-command "python -m loadtests.peers.inference --port {port}"
    READY_FILE=ready.json locust -f loadtests/locustfile.py --headless -u 50 -r 10 -t 1m

Locust costs several hundred µs of CPU per request: use it to find what breaks under a mix, and
`loadtests.run` for figures.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task
from locust.exception import StopUser

_SAID: dict[str, str] = json.loads(Path(os.environ["READY_FILE"]).read_text())
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
    """What all have in common: the function's address and the key."""

    abstract = True
    host = _SAID["invocation_url"]
    wait_time = between(0.1, 1.0)

    def on_start(self) -> None:
        self.client.headers["authorization"] = f"Bearer {_SAID['api_key']}"
        self.client.headers["function-id"] = _SAID["function_id"]
        with self.client.get("/health", name="first call", catch_response=True) as answer:
            if answer.status_code == 401:
                answer.failure("the key is refused")
                raise StopUser

    def tokens(self, name: str, give_up_after: int | None) -> None:
        """Read a stream to its ``[DONE]``, or hang up after some tokens."""
        started = time.perf_counter()
        seen = 0
        with self.client.post(
            _CHAT, json=_question(stream=True), name=name, stream=True, catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            for line in answer.iter_lines():
                if not line:
                    continue
                if line == b"data: [DONE]":
                    answer.success()
                    return
                seen += 1
                if seen == 1:
                    _first_token(name, time.perf_counter() - started)
                if seen == give_up_after:
                    answer.close()
                    answer.success()
                    return
            answer.failure(f"the stream ended without [DONE] after {seen} tokens")


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
    """Small JSON in, small JSON out."""

    weight = 5

    @task
    def ask(self) -> None:
        self.client.post(_CHAT, json=_question(stream=False), name="chat")


class Stream(Caller):
    """Tokens as they come."""

    weight = 4

    @task
    def listen(self) -> None:
        self.tokens("stream", give_up_after=None)


class Impatient(Caller):
    """Hangs up in the middle: the worker must be told, and the next caller must not notice."""

    weight = 2

    @task
    def leave(self) -> None:
        self.tokens("stream, hung up", give_up_after=random.randint(1, 20))


class Upload(Caller):
    """Bodies on both sides of the 32 KiB that fit into the queue's message."""

    weight = 1

    @task
    def send(self) -> None:
        body = _UPLOAD[: int(10 ** random.uniform(3, 6.6))]
        with self.client.post("/upload", data=body, catch_response=True) as answer:
            if answer.status_code == 200 and answer.json()["received"] != len(body):
                answer.failure(f"{answer.json()['received']} of {len(body)} bytes arrived")
