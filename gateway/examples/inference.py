"""A demo inference server that does everything to a connection that a function may do.

It takes the part of a user's own server, and knows nothing of the gateway. Run it with
``python -m gateway.examples.inference --port 8000`` or ``uvicorn gateway.examples.inference:app``.
Its paths:

    /health  /v2/health/ready          200 as soon as it serves
    /v1/models  /v1/chat/completions   OpenAI's interface, streamed or not; repeats the message
    /classify                          a real model on the CPU: returns the type of a file
    /echo  /reflect  /count            return the request: its body, its head, its body's hash
    /sse  /huge  /slow  /ping-pong     long, large, late and bidirectional responses
    /status/{n}  /fail/{n}  /headers/{n}  /die   status codes, headers and failures
    /running                           the number of requests in progress, to observe cancellation
"""

import argparse
import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Path, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.examples import chat

if TYPE_CHECKING:
    from magika import Magika

BLOCK = bytes(range(256)) * 256
"""The content that ``/huge`` repeats."""

app = FastAPI(title="Demo inference server")
app.include_router(chat.router)


class InProgress:
    """Counts the requests in progress.

    ``broken`` counts requests that ended before their response was complete.
    """

    def __init__(self) -> None:
        self.running = 0
        self.begun = 0
        self.broken = 0
        self._waiting: dict[asyncio.Event, int] = {}

    def begin(self) -> None:
        self.begun += 1
        self._change(1)

    def end(self, *, is_complete: bool) -> None:
        self.broken += not is_complete
        self._change(-1)

    async def wait_until(self, running: int) -> None:
        """Wait until exactly ``running`` requests are in progress."""
        if self.running != running:
            reached = asyncio.Event()
            self._waiting[reached] = running
            try:
                await reached.wait()
            finally:
                del self._waiting[reached]

    def _change(self, by: int) -> None:
        self.running += by
        for reached, running in self._waiting.items():
            if running == self.running:
                reached.set()


in_progress = InProgress()


class CountRequests:
    """Middleware that counts requests, except those for the server's own state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in {"/running", "/health", "/v2/health/ready"}:
            await self._app(scope, receive, send)
            return
        is_complete = False

        async def send_and_watch(message: Message) -> None:
            nonlocal is_complete
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                is_complete = True
            await send(message)

        in_progress.begin()
        try:
            await self._app(scope, receive, send_and_watch)
        finally:
            in_progress.end(is_complete=is_complete)


app.add_middleware(CountRequests)


async def _while_connected(request: Request, work: Coroutine[Any, Any, None]) -> bool:
    """Run ``work`` and return True; cancel it and return False if the client disconnects first."""

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        leaving = group.create_task(wait_for_disconnect())
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        is_done = working.done()
        working.cancel()
        leaving.cancel()
    return is_done


class Unanswered(Response):
    """No response: the client has disconnected."""

    async def __call__(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        return


@app.get("/health")
@app.get("/v2/health/ready")
async def health() -> PlainTextResponse:
    return PlainTextResponse("ok")


@app.get("/running")
async def running(until: Annotated[int, Query(ge=-1)] = -1, wait_s: float = 10) -> JSONResponse:
    """Return the number of requests in progress; wait up to ``wait_s`` for it to be ``until``."""
    if until >= 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await in_progress.wait_until(until)
    counts = {name: getattr(in_progress, name) for name in ("running", "begun", "broken")}
    return JSONResponse(counts)


# Requests returned


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


class Reflect:
    """Return the request's head as it arrived, for any method and any path below ``/reflect``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body_bytes = 0
        async for chunk in Request(scope, receive).stream():
            body_bytes += len(chunk)
        reflection = {
            "method": scope["method"],
            "raw_path": scope["raw_path"].decode("latin-1"),
            "query": scope["query_string"].decode("latin-1"),
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")]
                for name, value in scope["headers"]
            ],
            "body_bytes": body_bytes,
        }
        await JSONResponse(reflection)(scope, receive, send)


app.router.routes.append(Route("/reflect{below:path}", Reflect()))


@app.api_route("/count", methods=["POST", "PUT"])
async def count(request: Request) -> JSONResponse:
    digest = hashlib.sha256()
    body_bytes = 0
    async for chunk in request.stream():
        digest.update(chunk)
        body_bytes += len(chunk)
    return JSONResponse({"bytes": body_bytes, "sha256": digest.hexdigest()})


# Long, large, late and bidirectional responses


@app.get("/sse")
async def sse(
    events: Annotated[int, Query(ge=0)] = 10,
    interval_ms: Annotated[float, Query(ge=0)] = 100,
    pad_bytes: Annotated[int, Query(ge=0, le=1 << 20)] = 0,
) -> StreamingResponse:
    """Send events at a constant rate, each with the time of the monotonic clock in nanoseconds.

    A late event does not delay the following ones.
    """

    async def stream() -> AsyncIterator[bytes]:
        pad = "x" * pad_bytes
        start = time.monotonic()
        for number in range(events):
            early_s = start + number * interval_ms / 1e3 - time.monotonic()
            if early_s > 0:
                await asyncio.sleep(early_s)
            yield b'data: {"n": %d, "at_ns": %d, "pad": "%s"}\n\n' % (
                number,
                time.monotonic_ns(),
                pad.encode(),
            )

    return StreamingResponse(
        stream(), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@app.get("/huge")
async def huge(
    size_bytes: Annotated[int, Query(alias="bytes", ge=0)] = 1 << 30, announce: bool = False
) -> StreamingResponse:
    """Send ``bytes`` of `BLOCK`, with a Content-Length if ``announce``, else chunked."""

    async def stream() -> AsyncIterator[bytes]:
        left = size_bytes
        while left > 0:
            yield BLOCK[:left]
            left -= len(BLOCK)

    headers = {"content-length": str(size_bytes)} if announce else None
    return StreamingResponse(stream(), media_type="application/octet-stream", headers=headers)


@app.api_route("/slow", methods=["GET", "POST"])
async def slow(request: Request, seconds: Annotated[float, Query(ge=0)] = 1) -> Response:
    """Respond after ``seconds``; stop working if the client disconnects."""
    await request.body()
    if await _while_connected(request, asyncio.sleep(seconds)):
        return PlainTextResponse(f"after {seconds} s\n")
    return Unanswered()


class PingPong:
    """Respond to every part of the request's body as it arrives."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        more_body = True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more_body = message.get("more_body", False)
            if message["body"]:
                part = b"pong " + message["body"]
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


app.router.routes.append(Route("/ping-pong", PingPong()))


# Status codes, headers and failures

Status = Annotated[int, Path(ge=200, le=599)]


@app.api_route("/status/{code}", methods=["GET", "HEAD", "POST"])
async def status(code: Status) -> Response:
    """Respond with any final status and no body."""
    return Response(status_code=code, headers={"location": "/health"} if code // 100 == 3 else None)


@app.api_route("/fail/{code}", methods=["GET", "POST"])
async def fail(code: Annotated[int, Path(ge=400, le=599)]) -> Response:
    """Fail as FastAPI applications do, with a ``detail`` in JSON."""
    raise HTTPException(code, "Failed as asked")


@app.get("/headers/{number}")
async def many_headers(number: Annotated[int, Path(ge=0, le=1000)]) -> Response:
    return PlainTextResponse("ok", headers={f"x-header-{n}": f"value {n}" for n in range(number)})


class Die:
    """Abort the response after ``after_bytes`` of its body: ``?how=connection`` or ``process``.

    With ``announce=1`` it has a Content-Length that is never reached; otherwise it is chunked.
    ``process`` kills the server with SIGKILL, before the head if ``after_bytes=0``.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = Request(scope, receive).query_params
        after_bytes = int(query.get("after_bytes", "1000"))
        headers = [(b"content-type", b"application/octet-stream")]
        if query.get("announce") == "1":
            headers.append((b"content-length", b"%d" % (after_bytes + 1)))
        how = query.get("how", "connection")
        if how == "connection" or after_bytes:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            body = (BLOCK * (after_bytes // len(BLOCK) + 1))[:after_bytes]
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if how == "process":
            os.kill(os.getpid(), signal.SIGKILL)
        # Returning here leaves the response incomplete, and uvicorn closes the connection.


app.router.routes.append(Route("/die", Die()))


# A model


@cache
def _magika() -> "Magika":
    from magika import Magika  # noqa: PLC0415  not needed to run the rest

    return Magika()


@app.post("/classify")
def classify(file: UploadFile) -> PlainTextResponse:
    """Return a file's type, from the neural network in magika's wheel."""
    try:
        model = _magika()
    except ImportError:
        raise HTTPException(501, "No model: install it with pip install magika") from None
    found = model.identify_bytes(file.file.read())
    return PlainTextResponse(f"{found.output.label} {found.output.mime_type} {found.score:.3f}\n")


def main() -> None:
    """Serve until SIGTERM. uvicorn prints the address as ``Uvicorn running on ...``."""
    parser = argparse.ArgumentParser(description="Demo inference server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 means any free port")
    arguments = parser.parse_args()
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        access_log=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
