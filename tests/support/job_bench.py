"""One job of the worker agent between recording ports."""

from typing import Any

from tests.support.envelopes import REQUESTED_AT_NS, envelope
from worker_agent.job.machine import Job, Site
from worker_agent.job.request import Identity

IDENTITY = Identity("h:1", [], asset_dir="/a", large_output_dir="/o")
JSON = [(b"content-type", b"application/json"), (b"connection", b"keep-alive")]


class Port:
    """A port that records every call in the script that all ports of the job share."""

    def __init__(self, name: str, script: list[str]) -> None:
        self._name = name
        self._script = script

    def __getattr__(self, call: str) -> Any:
        def record(*arguments: object, **_: object) -> None:
            shown = [repr(a) for a in arguments if isinstance(a, bytes | int) and len(repr(a)) < 20]
            self._script.append(" ".join([f"{self._name}.{call}", *shown]))

        return record


class AttachPort(Port):
    def stream(self, job: Job, head: bytes, total_bytes: int | None) -> Port:
        body = None if total_bytes is None else total_bytes - len(head)
        self._script.append(f"attach.stream {body}")
        return Port("post", self._script)

    def fetch(self, job: Job) -> Port:
        self._script.append("attach.fetch")
        return Port("rest", self._script)


class Bench:
    def __init__(
        self, *, has_rest: bool = False, length: bytes = b"", method: bytes = b"POST"
    ) -> None:
        self.script: list[str] = []
        site = Site(
            inference=Port("inference", self.script),
            attach=AttachPort("attach", self.script),
            desk=Port("desk", self.script),
            identity=IDENTITY,
        )
        headers = ((b"content-length", length),) if length else ()
        self.job = Job(
            site,
            Port("lease", self.script),  # type: ignore[arg-type]
            envelope(method, headers=headers, has_rest=has_rest),
            0.0,
        )
        self.call = Port("call", self.script)

    def begin(self) -> "Bench":
        self.job.begin(REQUESTED_AT_NS)
        return self

    def forward(self) -> "Bench":
        self.begin()
        if self.job.opened(self.call) is not None:  # type: ignore[arg-type]
            self.job.sent()
        self.script.clear()
        return self

    def stream(self) -> "Bench":
        self.forward()
        self.job.response_head(200, JSON, None)
        self.script.clear()
        return self

    def take(self) -> list[str]:
        taken = self.script[:]
        self.script.clear()
        return taken
