"""One job of the worker agent between recording ports."""

from collections.abc import Callable
from typing import Any

from http1.stream import NO_TRAILERS, Failure, Headers
from tests.support.envelopes import REQUESTED_AT_NS, envelope
from worker_agent.job.context import Context
from worker_agent.job.failures import ASSETS
from worker_agent.job.machine import Job
from worker_agent.job.request import PlatformHeaders
from worker_agent.job.states import Event
from worker_agent.job.window import StartGate

PLATFORM_HEADERS = PlatformHeaders("h:1", [], asset_dir="/a", large_output_dir="/o")
JSON = [(b"content-type", b"application/json"), (b"connection", b"keep-alive")]


class Port:
    """A port that records every call in the script that all ports of the job share."""

    def __init__(self, name: str, script: list[str]) -> None:
        self._name = name
        self._script = script

    def __getattr__(self, call: str) -> Any:
        def record(*arguments: object, **_: object) -> object:
            shown = [
                repr(a)
                for a in arguments
                if a and isinstance(a, bytes | int | list) and len(repr(a)) < 30
            ]
            self._script.append(" ".join([f"{self._name}.{call}", *shown]))
            return None

        return record


class LeasePort(Port):
    is_lapsed = False

    def __init__(self, name: str, script: list[str], deliveries: int = 1) -> None:
        super().__init__(name, script)
        self.deliveries = deliveries

    def is_over(self) -> bool:
        return self.is_lapsed


class CallPort(Port):
    trailers = NO_TRAILERS


class PostPort(Port):
    """``trailers`` are those that it was ended with."""

    trailers: Headers = NO_TRAILERS

    def send_end(self, trailers: Headers) -> None:
        self.trailers = trailers
        self.__getattr__("send_end")(trailers)


class AttachPort(Port):
    """``head`` is what the last POST began with, which is ``post``."""

    head = b""
    post: PostPort

    def stream(self, job: Job, head: bytes, total_bytes: int | None) -> Port:
        self.head = head
        body = None if total_bytes is None else total_bytes - len(head)
        self._script.append(f"attach.stream {body}")
        self.post = PostPort("post", self._script)
        return self.post

    def fetch(self, job: Job) -> Port:
        self._script.append("attach.fetch")
        return Port("rest", self._script)


class Bench:
    def __init__(
        self,
        *,
        has_rest: bool = False,
        length: bytes = b"",
        method: bytes = b"POST",
        more: tuple[tuple[bytes, bytes], ...] = (),
        deliveries: int = 1,
        is_last_run: bool = False,
    ) -> None:
        self.script: list[str] = []
        self.attach = AttachPort("attach", self.script)
        context: Context[Job] = Context(
            inference=Port("inference", self.script),
            attach=self.attach,
            registry=Port("registry", self.script),
            platform_headers=PLATFORM_HEADERS,
            gate=StartGate(),
        )
        headers = (*more, (b"content-length", length)) if length else more
        self.lease = LeasePort("lease", self.script, deliveries)
        self.job = Job(
            context,
            self.lease,  # type: ignore[arg-type]
            envelope(method, headers=headers, has_rest=has_rest),
            0.0,
            is_last_run=is_last_run,
        )
        self.call = CallPort("call", self.script)

    def begin(self) -> "Bench":
        self.job.begin(REQUESTED_AT_NS)
        return self

    def forward(self) -> "Bench":
        self.begin().send()
        self.script.clear()
        return self

    def send(self) -> None:
        """Send the request, as the inference server's port does when it has a connection."""
        if self.job.may_send(0.0):
            self.job.sent(self.call, 0.0)  # type: ignore[arg-type]

    def stream(self) -> "Bench":
        self.forward()
        self.job.response_head(200, JSON, None)
        self.script.clear()
        return self

    def take(self) -> list[str]:
        taken = self.script[:]
        self.script.clear()
        return taken


FIRE: dict[Event, list[Callable[[Bench], object]]] = {
    Event.BEGIN: [
        lambda b: b.job.begin(REQUESTED_AT_NS),
        lambda b: b.job.begin(REQUESTED_AT_NS + 3_600_000_000_000),
    ],
    Event.FAILED: [lambda b: b.job.failed(ASSETS)],
    Event.MAY_SEND: [lambda b: b.job.may_send(0.0), lambda b: b.job.may_send(3_600.0)],
    Event.SENT: [lambda b: b.job.sent(b.call, 0.0)],  # type: ignore[arg-type]
    Event.SENT_AGAIN: [lambda b: b.job.sent_again(b.call)],  # type: ignore[arg-type]
    Event.UNREACHABLE: [lambda b: b.job.unreachable()],
    Event.RESPONSE_INTERIM: [lambda b: b.job.response_interim(103, JSON)],
    Event.RESPONSE_WHOLE: [lambda b: b.job.response_whole(200, JSON, 2, b"{}")],
    Event.RESPONSE_HEAD: [
        lambda b: b.job.response_head(200, JSON, None),
        lambda b: b.job.response_head(600, JSON, None),
    ],
    Event.RESPONSE_DATA: [lambda b: b.job.response_data(b"x")],
    Event.RESPONSE_CHUNK: [lambda b: b.job.response_chunk(b"1\r\nx\r\n", 1)],
    Event.RESPONSE_END: [lambda b: b.job.response_end()],
    Event.RESPONSE_BROKEN: [
        lambda b: b.job.response_broken(Failure.CLOSED, is_stale=False),
        lambda b: b.job.response_broken(Failure.RESET, is_stale=True),
        lambda b: b.job.response_broken(Failure.INVALID, is_stale=False),
    ],
    Event.DISCARDED: [lambda b: b.job.discarded()],
    Event.PAUSE_WRITING: [lambda b: b.job.pause_writing()],
    Event.RESUME_WRITING: [lambda b: b.job.resume_writing()],
    Event.REST_DATA: [lambda b: b.job.rest_data(b"y"), lambda b: b.job.rest_data(b"too much")],
    Event.REST_END: [lambda b: b.job.rest_end()],
    Event.REST_BROKEN: [lambda b: b.job.rest_broken()],
    Event.POST_PAUSE_WRITING: [lambda b: b.job.post_pause_writing()],
    Event.POST_RESUME_WRITING: [lambda b: b.job.post_resume_writing()],
    Event.POSTED: [lambda b: b.job.posted()],
    Event.POSTPONED: [lambda b: b.job.postponed()],
    Event.POST_ANSWERED: [lambda b: b.job.post_answered(200), lambda b: b.job.post_answered(401)],
    Event.POST_BROKEN: [
        lambda b: b.job.post_broken(),
        lambda b: b.job.post_broken(is_unread=True),
    ],
    Event.CANCEL: [lambda b: b.job.cancel()],
    Event.ABANDON: [lambda b: b.job.abandon()],
    Event.LEASED_AGAIN: [lambda b: b.job.leased_again(b.lease)],  # type: ignore[arg-type]
    Event.LAPSE: [
        lambda b: b.job.lapse(),
        lambda b: (b.job.postponed(), b.job.lapse()),  # type: ignore[func-returns-value]
    ],
    Event.RUN_ENDED: [lambda b: b.job.run_ended()],
}
"""Each event, in the ways that make a difference."""
