"""Ports that record their calls in one common script."""

from collections.abc import Callable, Iterator

from gateway.invocation.bounds import PhaseBounds
from gateway.invocation.collection import SpoolUser
from gateway.invocation.polled import CallProgress
from http1.stream import EncodedHead, NullRequestStream, TakeChunk
from queueing.interface import LineState, OwnLine, RunDecision, WaitingRequests
from wire.http1 import chunk_data


class Script:
    """Calls in order, as text, for example ``client.end``; ``on_line`` is called for each."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.on_line: Callable[[str], None] = lambda line: None

    def add(self, line: str) -> None:
        self.lines.append(line)
        self.on_line(line)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


class RecordedStream(NullRequestStream):
    """A `http1.stream.RequestStream` that records what it is told; data as it is."""

    def __init__(self) -> None:
        self.script: list[bytes | str] = []

    def request_data(self, data: bytes) -> None:
        self.script.append(data)

    def first_part_end(self) -> None:
        self.script.append("first part end")

    def request_end(self) -> None:
        self.script.append("end")

    def request_broken(self) -> None:
        self.script.append("broken")

    def pause_writing(self) -> None:
        self.script.append("pause")

    def resume_writing(self) -> None:
        self.script.append("resume")


class RecordedResponseWriter:
    """A `http1.stream.ResponseWriter` that records its calls."""

    def __init__(self, script: Script, name: str) -> None:
        self._script = script
        self._name = name
        self.head: tuple[int, list[tuple[bytes, bytes]], int | None] | None = None
        self.sent = b""
        self.is_slow = False
        self.over = False
        self.take_chunk: TakeChunk | None = None

    def _add(self, text: str) -> None:
        assert not self.over, f"{self._name}.{text} after the end"
        self._script.add(f"{self._name}.{text}")

    def send_interim(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert self.head is None
        self._add(f"interim {status} {headers}")

    def send_head(
        self, status: int, headers: list[tuple[bytes, bytes]], body_bytes: int | None
    ) -> None:
        assert self.head is None
        self.head = status, headers, body_bytes
        self._add(f"head {status}")

    def send_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: list[tuple[bytes, bytes]] | tuple[()] = (),
    ) -> None:
        lines = (head.lines + more_lines).split(b"\r\n")[:-1]
        headers = [(name, value) for name, _, value in (one.partition(b": ") for one in lines)]
        self.send_head(head.status, headers, body_bytes)
        if body:
            self.send_data(body)
        if trailers:
            self.add_trailers(list(trailers))
        self.send_end()

    def open_tunnel(self, headers: list[tuple[bytes, bytes]]) -> None:
        assert self.head is None
        self.head = 101, headers, None
        self._add("tunnel")

    def hand_over(self, headers: list[tuple[bytes, bytes]], successor: object) -> None:
        self._add("hand over")
        self.over = True

    def send_data(self, data: bytes) -> None:
        assert self.head is not None
        self.sent += data
        self._add(f"body {data!r}" if len(data) <= 20 else f"body of {len(data)}")

    def send_chunk(self, chunk: bytes, size: int) -> None:
        assert chunk.startswith(b"%x\r\n" % size)
        self.send_data(chunk_data(chunk, size))

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        self.take_chunk = take_chunk

    def add_trailers(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self._add(f"trailers {trailers}")

    def send_end(self) -> None:
        self._add("end")
        self.over = True

    def abort(self) -> None:
        self._add("abort")
        self.over = True

    def pause_reading(self) -> None:
        self._add("pause")

    def resume_reading(self) -> None:
        self._add("resume")

    def is_writing_paused(self) -> bool:
        return self.is_slow

    def show_progress(self, progress: CallProgress) -> None:
        self._add(f"progress {progress.percent} {progress.body!r}")


class RecordedPost:
    """A `gateway.invocation.context.WorkerPost` that records its calls."""

    def __init__(self, script: Script, name: str = "post") -> None:
        self._script = script
        self._name = name

    def pause_reading(self) -> None:
        self._script.add(f"{self._name}.pause")

    def resume_reading(self) -> None:
        self._script.add(f"{self._name}.resume")

    def release(self) -> None:
        self._script.add(f"{self._name}.release")

    def refuse(self, status: int, detail: str) -> None:
        self._script.add(f"{self._name}.refuse {status}")


class RecordedQueue:
    """A `queueing.interface.FunctionQueue` that records its calls; it has no positions."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.decision = RunDecision.RUN
        self.envelopes: list[bytes] = []
        self.versions: list[str] = []
        self.traces: list[bytes] = []
        self.withdrawn_position = 0
        self.runs = 0
        self.is_waiting = False

    def publish(
        self,
        version_id: str,
        request_id: str,
        envelope: bytes,
        callbacks: object,
        trace: bytes,
        *,
        runs: int = 0,
    ) -> None:
        self.runs = runs
        self.envelopes.append(envelope)
        self.versions.append(version_id)
        self.traces.append(trace)
        self._script.add("queue.publish")

    def withdraw(self, version_id: str, request_id: str) -> None:
        self._script.add("queue.withdraw")

    async def withdraw_expired(self, version_id: str, request_id: str) -> int | None:
        self.withdraw(version_id, request_id)
        return self.withdrawn_position

    def has_waiting(self, version_id: str) -> bool:
        return self.is_waiting

    def leased(self, request_id: str) -> None:
        self._script.add("queue.leased")

    def has_waited(self, version_id: str, seconds: float) -> bool:
        return False

    def own_line(self, version_id: str, delivered: int) -> OwnLine:
        return OwnLine()

    def waiting(self) -> Iterator[WaitingRequests]:
        return iter(())

    async def line(self, version_id: str) -> LineState:
        raise NotImplementedError

    def answered(self, request_id: str) -> None:
        self._script.add("queue.answered")

    def forget(self, request_id: str) -> None:
        self._script.add("queue.forget")

    def may_run(self, request_id: str, deliveries: int) -> RunDecision:
        self._script.add(f"queue.may_run {deliveries}")
        return self.decision

    def started(self, request_id: str) -> None:
        self._script.add("queue.started")

    async def position(self, version_id: str, request_id: str) -> int:
        raise NotImplementedError

    async def depth(self, version_id: str) -> int:
        raise NotImplementedError


class RecordedRegistry:
    """A `gateway.invocation.context.LiveInvocations` that records its calls."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.polls: list[bytes] = []

    def issue_response_token(self, request_id: str) -> str:
        return "response-token"

    def issue_request_token(self, request_id: str) -> str:
        return "request-token"

    def issue_poll_token(self, request_id: str) -> str:
        return "poll-token"

    def poll_worker(self, request_id: str, number: int, envelope: bytes) -> None:
        self.polls.append(envelope)
        self._script.add(f"registry.poll_worker {number}")

    def renew_response_token(self, request_id: str) -> None:
        self._script.add("registry.renew")

    def moved_earlier(self, request_id: str) -> None:
        self._script.add("registry.moved_earlier")

    def bounded(self, bounds: PhaseBounds) -> None:
        self._script.add(f"registry.bounded {bounds.ends_at:.0f}")

    def wait_over(self, request_id: str) -> None:
        self._script.add("registry.wait_over")

    def expired(self, request_id: str) -> None:
        self._script.add("registry.expired")

    def finished(self, request_id: str) -> None:
        self._script.add("registry.finished")


class RecordedChannel:
    """A `gateway.invocation.context.CallChannel` that records its calls."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.sent = 1
        self.instance = b"instance-1"

    def cancel(self, number: int) -> None:
        self._script.add(f"channel.cancel {number}")

    def forget(self, number: int) -> None:
        self._script.add(f"channel.forget {number}")


class RecordedChannels:
    """A `gateway.invocation.context.DirectDispatch` with one worker, if ``is_free``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.is_free = False
        self.sent: list[tuple[bytes, bytes, bool]] = []
        """Head, first part of the body, and whether more of it follows."""

    def has_free(self, version_id: str, capacity: int) -> bool:
        return self.is_free

    def send(
        self,
        call: object,
        version_id: str,
        requested_at_ns: int,
        head: bytes,
        body: bytes,
        *,
        has_rest: bool,
    ) -> RecordedChannel | None:
        self._script.add("channels.send")
        self.sent.append((head, body, has_rest))
        return RecordedChannel(self._script)

    def token(self, request_id: str, version_id: str) -> str:
        return "channel-token"


class RecordedSpool:
    """Files of `gateway.invocation.collection` in memory; `finish` ends the operation that runs."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.files: list[RecordedSpoolFile] = []

    def open(self, user: SpoolUser) -> "RecordedSpoolFile":
        file = RecordedSpoolFile(self.script, user)
        self.files.append(file)
        return file

    def finish(self, *, is_good: bool = True) -> None:
        """End the operation of the only file that has one; ``is_good``: it did what it should."""
        (running,) = [file for file in self.files if file.running is not None]
        running.finish(is_good=is_good)


class RecordedSpoolFile:
    """A `gateway.invocation.collection.SpoolFile` that records its calls."""

    def __init__(self, script: Script, user: SpoolUser) -> None:
        self._script = script
        self._user = user
        self.content = b""
        self.running: bytes | tuple[int, int] | None = None
        self.is_closed = False

    def write(self, data: bytes | bytearray) -> None:
        assert self.running is None
        self.running = bytes(data)
        self._script.add(f"spool.write {len(data)}")

    def read(self, at: int, size: int) -> None:
        assert self.running is None
        assert at + size <= len(self.content)
        self.running = at, size
        self._script.add(f"spool.read {at} {size}")

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True
        self._script.add("spool.close")

    def finish(self, *, is_good: bool) -> None:
        running, self.running = self.running, None
        assert running is not None
        if self.is_closed:
            return
        if isinstance(running, bytes):
            if is_good:
                self.content += running
            self._user.spool_written(is_written=is_good)
        else:
            at, size = running
            self._user.spool_read(self.content[at : at + size] if is_good else b"")
