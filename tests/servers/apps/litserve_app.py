"""LitServe as its README shows it: a model with two steps, batching off, streaming on request."""

import sys
from collections.abc import Iterator
from typing import Any

import litserve


class Squares(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = lambda x: x**2

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"output": self.model(request["input"])}


class Words(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, request: dict[str, Any]) -> Iterator[str]:
        yield from str(request["prompt"]).split()

    def encode_response(self, output):  # LitServe makes a pydantic model of an annotation
        for word in output:
            yield {"word": word}


if __name__ == "__main__":
    server = litserve.LitServer(
        [Squares(api_path="/predict"), Words(api_path="/stream", stream=True)],
        accelerator="cpu",
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
