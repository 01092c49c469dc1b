"""OpenAI's SDK, LangChain and LiteLLM for Python; runs in an environment of its own.

Like the clients beside it, it reads ``BASE_URL``, ``API_KEY`` and ``ONE_FUNCTION_KEY``, and prints
a line ``PASS name`` or ``FAIL name: why`` for each thing that it tried.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import httpx
import litellm
import openai
from langchain_openai import ChatOpenAI

BASE_URL, API_KEY = os.environ["BASE_URL"], os.environ["API_KEY"]
MESSAGES: Any = [{"role": "user", "content": "one two three"}]
TEXT = "one two three"
SLOW = "/f/demo/slow?seconds=600"
UNAVAILABLE = "/f/demo/fail/503"


class Counting(httpx.HTTPTransport):
    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return super().handle_request(request)


def sdk(key: str = API_KEY, path: str = "/v1", **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=BASE_URL + path, api_key=key, timeout=60, **more)


def failure(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def openai_model_name() -> None:
    client = sdk()
    model = next(model.id for model in client.models.list() if model.id == "demo")
    whole = client.chat.completions.create(model=model, messages=MESSAGES)
    assert whole.choices[0].message.content == TEXT


def openai_one_function_key() -> None:
    client = sdk(os.environ["ONE_FUNCTION_KEY"])
    model = client.models.list().data[0].id
    whole = client.chat.completions.create(model=model, messages=MESSAGES)
    assert whole.choices[0].message.content == TEXT


def openai_streaming() -> None:
    stream = sdk().chat.completions.create(model="demo", messages=MESSAGES, stream=True)
    pieces = [event.choices[0].delta.content or "" for event in stream if event.choices]
    assert "".join(pieces).strip() == TEXT
    assert len(pieces) > 3


def openai_cut_stream() -> None:
    seen: list[str] = []

    def read() -> None:
        stream = sdk().chat.completions.create(
            model="demo", messages=MESSAGES, stream=True, extra_body={"break_after": 2}
        )
        seen.extend(event.choices[0].delta.content or "" for event in stream)

    error = failure(read)
    assert isinstance(error, openai.APIConnectionError | httpx.TransportError), repr(error)


def openai_reason() -> None:
    error = failure(lambda: sdk().chat.completions.create(model="nothing", messages=MESSAGES))
    assert isinstance(error, openai.NotFoundError)
    assert "names no function" in str(error), str(error)
    error = failure(sdk("nvapi-wrong").models.list)
    assert isinstance(error, openai.AuthenticationError)
    assert "no valid credential" in str(error), str(error)


def sendings(path: str, headers: dict[str, str]) -> int:
    """Return how often the SDK sends a request that fails."""
    transport = Counting()
    client = sdk(path="", http_client=httpx.Client(transport=transport), max_retries=2)
    failure(lambda: client.get(path, cast_to=object, options={"headers": headers}))
    return transport.requests


def openai_retries() -> None:
    assert sendings(SLOW, {"nvcf-poll-seconds": "1"}) == 1
    assert sendings(UNAVAILABLE, {}) == 3


def langchain() -> None:
    chat = ChatOpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY, model="demo")
    assert chat.invoke("one two three").content == TEXT
    assert "".join(str(chunk.content) for chunk in chat.stream("one two three")).strip() == TEXT
    nothing = ChatOpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY, model="nothing")
    assert "names no function" in str(failure(lambda: nothing.invoke("hello")))


def lite_llm() -> None:
    ask: dict[str, Any] = {"api_base": f"{BASE_URL}/v1", "api_key": API_KEY, "messages": MESSAGES}
    whole = litellm.completion(model="openai/demo", **ask)
    assert whole.choices[0].message.content == TEXT
    stream = litellm.completion(model="openai/demo", stream=True, **ask)
    assert "".join(event.choices[0].delta.content or "" for event in stream).strip() == TEXT
    error = failure(lambda: litellm.completion(model="openai/nothing", **ask))
    assert "names no function" in str(error), str(error)


TRIED = {
    "openai (Python): a model name, from URL and key alone": openai_model_name,
    "openai (Python): a key for one function": openai_one_function_key,
    "openai (Python): streaming": openai_streaming,
    "openai (Python): a cut stream is an error": openai_cut_stream,
    "openai (Python): the reason is shown": openai_reason,
    "openai (Python): retries": openai_retries,
    "LangChain": langchain,
    "LiteLLM": lite_llm,
}


def main() -> None:
    for name, attempt in TRIED.items():
        try:
            attempt()
        except Exception as error:  # noqa: BLE001
            why = "".join(traceback.format_exception_only(error)).strip().replace("\n", " ")
            print(f"FAIL {name}: {why[:400]}")
        else:
            print(f"PASS {name}")
    sys.stdout.flush()


main()
