"""A FastAPI application as its tutorial teaches it, served by uvicorn or by gunicorn's workers."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse

app = FastAPI()
items = APIRouter(prefix="/items")


@app.get("/health")
def health() -> str:
    return "ok"


@items.get("/")
async def list_items(request: Request) -> dict[str, str]:
    """Return the URL as the application sees it. Without the slash it is redirected here."""
    return {"url": str(request.url), "named": str(request.url_for("list_items"))}


@items.post("/")
async def create_item(request: Request) -> dict[str, str]:
    return {"body": (await request.body()).decode()}


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


app.include_router(items)
