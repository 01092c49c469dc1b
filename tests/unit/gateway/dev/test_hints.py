"""The calls that `gateway dev` prints."""

from pathlib import Path

from gateway.dev.functions import DevFunction
from gateway.dev.hints import Running, ready_document, ready_text
from gateway.dev.options import functions_of


def running(*, speak_grpc: bool = False, url: str = "nats://127.0.0.1:2") -> Running:
    options = functions_of(None, None, ["a=x", "b=y"], (), speak_grpc=speak_grpc)
    functions = tuple(
        DevFunction(one, f"id-of-{one.name}", f"version-of-{one.name}") for one in options
    )
    return Running(functions, "KEY", 8080, "http://127.0.0.1:1", url, Path("/tmp/d"))


def text_of(*, speak_grpc: bool) -> str:
    return ready_text(running(speak_grpc=speak_grpc))


def test_a_grpc_function_is_called_with_metadata_and_not_with_curl() -> None:
    text = text_of(speak_grpc=True)
    for name in ("a", "b"):
        assert (
            "grpcurl -plaintext -H 'authorization: Bearer KEY' "
            f"-H 'function-id: id-of-{name}' 127.0.0.1:8080 list"
        ) in text
    assert " curl " not in text
    assert "OpenAI" not in text
    python = text[text.index("import grpc") :]
    compile(python, "pasted", "exec")
    assert '("function-id", "id-of-a")' in python
    assert '"/grpc.health.v1.Health/Check"' in python


def test_a_function_of_http_is_called_with_curl() -> None:
    text = text_of(speak_grpc=False)
    assert "grpc" not in text
    assert "curl -H 'Authorization: Bearer KEY' -H 'function-id: id-of-b'" in text


def test_a_redis_is_named_in_place_of_nats_where_one_holds_queue_and_store() -> None:
    url = "redis://127.0.0.1:3"
    on_redis, on_nats = running(url=url), running()
    assert ready_document(on_redis)["redis_url"] == url
    assert url in ready_text(on_redis)
    assert "/tmp/d/redis/gateway.password" in ready_text(on_redis)
    assert "nats" not in str(ready_document(on_redis)) + ready_text(on_redis).lower()
    assert "redis" not in str(ready_document(on_nats)) + ready_text(on_nats).lower()
