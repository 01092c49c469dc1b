"""A model that repeats the last message, with the HTTP interface of OpenAI."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

MODEL = "echo"

router = APIRouter()


class ChatMessage(BaseModel):
    role: str
    content: str = ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    model: str = MODEL
    messages: list[ChatMessage]
    stream: bool = False
    stream_options: StreamOptions | None = None
    interval_ms: float = 0
    """Delay between two tokens of a stream; not part of OpenAI's interface."""
    break_after: int | None = None
    """Tokens after which a stream breaks off; not part of OpenAI's interface."""


@router.get("/v1/models")
async def models() -> JSONResponse:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "examples"}
    return JSONResponse({"object": "list", "data": [model]})


@router.post("/v1/chat/completions")
async def completions(
    request: ChatRequest, delay_ms: Annotated[float, Query(ge=0)] = 0
) -> Response:
    """Repeat the last message after ``delay_ms``, with one word per token."""
    await asyncio.sleep(delay_ms / 1e3)
    tokens = [
        f"{word} " for word in (request.messages[-1].content if request.messages else "").split()
    ]
    usage = {
        "prompt_tokens": sum(len(message.content.split()) for message in request.messages),
        "completion_tokens": len(tokens),
    }
    usage["total_tokens"] = sum(usage.values())
    common = {"id": "chatcmpl-demo", "created": int(time.time()), "model": request.model}
    if request.stream:
        return StreamingResponse(
            _stream(request, tokens, common, usage), media_type="text/event-stream"
        )
    message = {"role": "assistant", "content": "".join(tokens).strip()}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    completion = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
    return JSONResponse(completion)


async def _stream(
    request: ChatRequest, tokens: list[str], common: dict[str, Any], usage: dict[str, int]
) -> AsyncIterator[str]:
    def event(choices: list[dict[str, Any]], **more: object) -> str:
        chunk = {**common, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(chunk)}\n\n"

    delta: dict[str, str] = {"role": "assistant", "content": ""}
    yield event([{"index": 0, "delta": delta, "finish_reason": None}])
    for number, token in enumerate(tokens):
        if number == request.break_after:
            raise ConnectionError("The stream breaks off, as asked")
        await asyncio.sleep(request.interval_ms / 1e3)
        yield event([{"index": 0, "delta": {"content": token}, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if request.stream_options is not None and request.stream_options.include_usage:
        yield event([], usage=usage)
    yield "data: [DONE]\n\n"
