"""``nvidia-haystack`` 0.0.3, the last that speaks NVCF: it lists functions, calls and polls."""

import os

from haystack.utils import Secret
from haystack_integrations.components.generators.nvidia import NvidiaGenerator
from haystack_integrations.utils.nvidia import client
from trying import try_all

# Its addresses are constants.
for name in ("FUNCTIONS_ENDPOINT", "INVOKE_ENDPOINT", "STATUS_ENDPOINT"):
    there = getattr(client, name)
    setattr(client, name, there.replace("https://api.nvcf.nvidia.com", os.environ["BASE_URL"]))


def generates() -> None:
    generator = NvidiaGenerator("demo_slow", api_key=Secret.from_token(os.environ["API_KEY"]))
    generator.warm_up()
    backend = generator._backend  # noqa: SLF001
    for headers in ({}, {"NVCF-POLL-SECONDS": "1"}):
        backend.client.headers.update(headers)
        made = generator.run("one two three")
        assert made["replies"] == ["one two three"]
        assert made["meta"][0]["finish_reason"] == "stop"


try_all({"haystack (NVCF): a function by its name, polled": generates})
