"""``langchain-nvidia-ai-endpoints``: models by URL, and functions over NVCF's polling routes."""

import asyncio
import os

from langchain_nvidia_ai_endpoints import ChatNVIDIA, Model, register_model
from trying import try_all

URL, KEY = os.environ["BASE_URL"], os.environ["API_KEY"]
TEXT = "one two three"


def polling(client: ChatNVIDIA) -> ChatNVIDIA:
    """Return ``client`` with its one address that no setting changes."""
    for inner in (client._client, client._async_client):  # noqa: SLF001
        inner.polling_url_tmpl = f"{URL}/v2/nvcf/pexec/status/{{request_id}}"
    return client


def by_url() -> None:
    chat = ChatNVIDIA(base_url=f"{URL}/v1", api_key=KEY, model="demo")
    assert chat.invoke(TEXT).content == TEXT
    assert "".join(str(part.content) for part in chat.stream(TEXT)).strip() == TEXT
    assert "demo" in {model.id for model in chat.available_models}


def by_function() -> None:
    function = os.environ["SLOW_FUNCTION"]
    register_model(
        Model(
            id="slow",
            model_type="chat",
            client="ChatNVIDIA",
            endpoint=f"{URL}/v2/nvcf/pexec/functions/{function}",
        )
    )
    headers = {"NVCF-POLL-SECONDS": "1"}
    chat = polling(ChatNVIDIA(model="slow", api_key=KEY, default_headers=headers))
    assert chat.invoke(TEXT).content == TEXT
    assert asyncio.run(chat.ainvoke(TEXT)).content == TEXT


try_all(
    {
        "langchain-nvidia-ai-endpoints: a model by URL": by_url,
        "langchain-nvidia-ai-endpoints: a function that is polled": by_function,
    }
)
