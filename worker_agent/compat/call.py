"""One request whose response is not simply passed on: the ports of its job.

A job calls the inference server, the gateway process and the registry through `CompatCall`, which
stands between:

* Folders and assets are there before the inference server gets the request.
* In `Mode.COMPAT` the response is collected, then rewritten, before the job gets it.
* A 202 for a client that waits no longer goes to the gateway process beside the job
  (`worker_agent.compat.polling`). The job's own response goes to the client that waits then.
* After a 202 of the inference server, every poll is another request to it, and the job gets the
  first other response.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import BinaryIO, Protocol

from http1.stream import Defect, Failure, Headers, RequestWriter
from queueing.interface import PollHandler, QueueUnavailable, RunDecision, Subscription
from runtime.events import emit
from runtime.tasks import spawn
from wire.decoded_envelope import Envelope, decode_control_urls, decode_envelope
from wire.envelope import MAX_DIRECT_RESPONSE_BYTES, EnvelopeError
from wire.headers import LOCATION
from wire.http1 import BODILESS_STATUSES
from wire.ids import parse_uuid
from worker_agent.attach.channel import ChannelLease
from worker_agent.compat.archive import CONTENT_TYPE as ZIP
from worker_agent.compat.archive import Archive
from worker_agent.compat.folders import FileThreads, RequestFolders, artifacts, remove_folder
from worker_agent.compat.polling import PolledClient, Polling
from worker_agent.compat.progress import ProgressWatch
from worker_agent.compat.rewriting import (
    ACCEPTED,
    EMPTY,
    FIRST_ERROR,
    ProgressNews,
    error_response,
    progress_response,
)
from worker_agent.compat.transfers import ObjectUrls, TokenUsed, TransferError, Transfers
from worker_agent.job.context import (
    Attach,
    Context,
    Delivery,
    Inference,
    InferenceCallbacks,
    JobRegistry,
    Post,
    Rest,
)
from worker_agent.job.failures import ASSETS, INTERNAL, PREPARATION
from worker_agent.job.machine import Job, inner_head
from worker_agent.job.modes import Mode
from worker_agent.job.request import (
    Outgoing,
    PlatformHeaders,
    RequestError,
    build_request,
    poll_left_s,
)
from worker_agent.job.states import FORWARDING
from worker_agent.job.window import StartGate

_FOUND = 302
_REMOVAL_S = 5.0
"""The agent waits so long for folders to be removed before it ends."""

_log = logging.getLogger("worker.compat")


class PollSource(Protocol):
    """Where polls come from: a `queueing.interface.PullConsumer`."""

    async def listen_for_polls(self, request_id: str, on_poll: PollHandler) -> Subscription:
        """Call ``on_poll`` for every poll of a request. Raises `QueueUnavailable`."""


class CompatRegistry(JobRegistry[Job], Protocol):
    """The jobs of the agent."""

    def freed(self, job: Job, *, is_timed: bool = True) -> None:
        """As its base says; without ``is_timed`` the job's time tells nothing of the server."""


class CompatPorts:
    """What all such requests of an agent use of it."""

    def __init__(
        self,
        inference: Inference,
        attach: Attach[Job],
        registry: CompatRegistry,
        polls: PollSource,
        gate: StartGate,
    ) -> None:
        self.inference = inference
        self.attach = attach
        self.registry = registry
        self.polls = polls
        self.gate = gate


class Compat:
    """All requests of an agent whose responses are not simply passed on.

    ``max_asset_bytes`` bounds the assets of one request together. With ``control_plane`` the
    gateways are NVIDIA's.
    """

    def __init__(
        self,
        platform_headers: PlatformHeaders,
        *,
        is_attachable: Callable[[bytes], bool],
        max_asset_bytes: int,
        control_plane: ObjectUrls | None = None,
    ) -> None:
        self.control_plane = control_plane
        self.platform_headers = platform_headers
        self.is_attachable = is_attachable
        self.assets = RequestFolders(Path(platform_headers.asset_dir.decode()))
        self.responses = RequestFolders(Path(platform_headers.large_output_dir.decode()))
        self.threads = FileThreads()
        self.progress = ProgressWatch(self.responses.root, self.threads)
        self.transfers = Transfers(self.threads, max_asset_bytes)
        self._removals: dict[Path, asyncio.Task[None]] = {}
        self._ports: CompatPorts | None = None

    @property
    def ports(self) -> CompatPorts:
        """What it was opened with."""
        if self._ports is None:
            raise AssertionError("not open")
        return self._ports

    def open(self, ports: CompatPorts) -> None:
        """Use ``ports`` from now on."""
        self._ports = ports

    async def close(self) -> None:
        """Watch nothing, remove what is to be removed, and close every connection."""
        self.progress.close()
        if self._removals:
            await asyncio.wait(set(self._removals.values()), timeout=_REMOVAL_S)
        await self.transfers.close()
        self.threads.close()
        self.assets.close()
        self.responses.close()

    def special(self, job: Job, request: Outgoing) -> Context[Job]:
        """Return the ports of a job with such a request."""
        call = CompatCall(self, job, request)
        return Context(call, call, call, self.platform_headers, self.ports.gate)

    async def make_folder(self, folders: RequestFolders, request_id: str) -> None:
        """Make an empty folder. Raises `OSError`.

        That of a call that is delivered again may be on its way to be removed.
        """
        if (removal := self._removals.get(folders.root / request_id)) is not None:
            await asyncio.wait({removal})
        await self.threads.run(folders.make, request_id)

    def remove(self, folders: list[Path]) -> None:
        """Remove folders, soon."""
        removal = spawn(self._remove(folders), "compat.remove")
        self._removals.update(dict.fromkeys(folders, removal))

    async def _remove(self, folders: list[Path]) -> None:
        for folder in folders:
            await self.threads.run(remove_folder, folder)
            if self._removals.get(folder) is asyncio.current_task():
                del self._removals[folder]


class EarlyResponse:
    """A 202 on its way to the gateway process: a `worker_agent.job.context.Delivery`."""

    def __init__(self, call: "CompatCall", job: Job, envelope: Envelope, response: bytes) -> None:
        self._call = call
        self._is_repeated = False
        self.envelope = envelope
        self.request_id = job.request_id
        self.leased_at = job.leased_at
        self.response = response
        self.trailers = self.fault = b""
        self.status = ACCEPTED

    def posted(self) -> None:
        """It was written."""

    def post_pause_writing(self) -> None:
        """It is complete: nothing can be paused."""

    def post_resume_writing(self) -> None:
        """The same."""

    def post_answered(self, status: int) -> None:
        """The gateway process has it, or does not want it."""
        self._call.early_delivered(self, is_delivered=status == 200)

    def post_broken(self, *, is_unread: bool = False) -> None:
        """The connection broke: its token admits one response, so once more does no harm."""
        if is_unread or not self._is_repeated:
            self._is_repeated = self._is_repeated or not is_unread
            self._call.repeat(self)
        else:
            self._call.early_delivered(self, is_delivered=False)


class CompatCall:
    """The ports of one job, and what its inference server reports to."""

    def __init__(self, compat: Compat, job: Job, request: Outgoing) -> None:
        self._compat = compat
        self._ports = compat.ports
        self._job = job
        self._mode = request.mode
        self._is_head = request.is_head
        self._loop = asyncio.get_running_loop()
        if self._mode is Mode.COMPAT:
            request.passes_interim = False
        limit = job.envelope.max_direct_response_bytes
        self._limit = limit or MAX_DIRECT_RESPONSE_BYTES
        self._folders: list[Path] = []
        self._response_folder = compat.responses.root / job.request_id
        self._polling: Polling | None = None
        self._subscription: Subscription | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._early: EarlyResponse | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._client_changed = asyncio.Event()
        self._is_prepared = self._is_asking_again = self._is_repeated = False
        self._is_passing = self._is_streaming = self._is_over = False
        self._again: Outgoing | None = None
        self._writer: RequestWriter | None = None
        self._rest: Rest | None = None
        self._status = 0
        self._headers: Headers = []
        self._announced: int | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._archive: Archive | None = None

    # The job's port to the inference server

    def open(self, request: Outgoing, callbacks: InferenceCallbacks, *, is_fresh: bool) -> None:  # noqa: ARG002 - it is the job
        """Send the request, after what it needs was prepared."""
        if self._mode is Mode.COMPAT and self._polling is None:
            self._poll(asks_again=False).begin()
        if self._is_prepared or not (self._mode is Mode.COMPAT or self._job.envelope.head.assets):
            self._is_prepared = True
            self._ports.inference.open(request, self, is_fresh=is_fresh)
        else:
            self._spawn(self._prepare(request, is_fresh=is_fresh), "compat.prepare")

    def broke(self) -> None:
        """A connection ended before a response head."""
        self._ports.inference.broke()

    def discard(self, writer: RequestWriter, callbacks: InferenceCallbacks) -> None:
        """Tell the inference server that nobody waits."""
        self._ports.inference.discard(writer, callbacks)

    async def _prepare(self, request: Outgoing, *, is_fresh: bool) -> None:
        job, compat = self._job, self._compat
        request_id = parse_uuid(job.request_id.encode())
        if request_id is None:
            # It would be the name of a folder.
            self._cannot("prepare", PREPARATION.detail, ValueError("the request id is not a UUID"))
            job.failed(PREPARATION)
            return
        if self._mode is Mode.COMPAT:
            self._folders.append(self._response_folder)
            try:
                await compat.make_folder(compat.responses, request_id)
            except OSError as error:
                self._cannot("prepare", PREPARATION.detail, error)
                job.failed(PREPARATION)
                return
            compat.progress.add(job.request_id, self._progressed)
        if job.envelope.head.assets:
            folder = compat.assets.root / request_id
            self._folders.append(folder)
            try:
                await compat.make_folder(compat.assets, request_id)
                assets = job.envelope.head.assets
                if compat.control_plane is not None:
                    data = job.lease.envelope
                    assets = await compat.control_plane.assets(job.envelope, data)
                await compat.transfers.fetch(assets, folder)
            except (OSError, TransferError) as error:
                self._cannot("fetch the assets", ASSETS.detail, error)
                job.failed(ASSETS)
                return
        self._is_prepared = True
        if self.may_send(self._loop.time()):
            self._ports.inference.open(request, self, is_fresh=is_fresh)

    # What the inference server reports: `InferenceCallbacks`

    def may_send(self, now: float) -> bool:
        """Return whether the request is still to be sent."""
        if self._is_asking_again:
            return self._job.state is FORWARDING
        return self._job.may_send(now)

    def sent(self, writer: RequestWriter, now: float) -> None:
        """The request was written."""
        self._writer = writer
        if self._is_asking_again:
            self._job.sent_again(writer)
            return
        self._job.sent(writer, now)
        if self._job.fetches_body and self._polling is not None:
            # A client that was told to ask again would send no more of the body.
            self._polling.hold()

    def unreachable(self) -> None:
        """No connection to the inference server could be opened."""
        if self._is_asking_again:
            self._job.response_broken(Failure.UNREACHABLE, is_stale=False)
        else:
            self._job.unreachable()

    def discarded(self) -> None:
        """The inference server is done with a request that was left."""
        self._job.discarded()

    def response_interim(self, status: int, headers: Headers) -> None:
        """Pass it on, if the client is to get such."""
        if self._mode is not Mode.COMPAT:
            self._job.response_interim(status, headers)

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        """The response arrived at once."""
        if self._mode is Mode.PREPARED or (self._mode is Mode.POLLED and status != ACCEPTED):
            self._job.response_whole(status, headers, body_bytes, body)
            return
        self.response_head(status, headers, body_bytes)
        if body:
            self.response_data(body)
        self.response_end()

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """The head is complete."""
        if self._mode is Mode.PREPARED or (self._mode is Mode.POLLED and status != ACCEPTED):
            self._is_passing = True
            self._job.response_head(status, headers, body_bytes)
            return
        self._status, self._headers, self._announced = status, headers, body_bytes
        self._body.clear()
        self._body_bytes = 0

    def response_data(self, data: bytes) -> None:
        """The next bytes of the body."""
        if self._is_passing:
            self._job.response_data(data)
            return
        self._body_bytes += len(data)
        if self._archive is not None:
            self._archive.add(data)
            return
        is_too_long = self._body_bytes > self._limit
        if is_too_long and (self._status == ACCEPTED or self._status >= FIRST_ERROR):
            # Nobody gets more of it than that.
            return
        self._body.append(data)
        if is_too_long:
            self._archive = self._new_archive()
            self._archive.add(b"".join(self._body))
            self._body.clear()

    def response_end(self) -> None:
        """The response is complete."""
        if self._is_passing:
            self._job.response_end()
            return
        self._writer = None
        # Its connection is another request's soon.
        self._job.sent_again(None)
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()
        if self._status == ACCEPTED:
            self._accepted(b"".join(self._body))
        elif self._status >= FIRST_ERROR:
            headers, body = error_response(
                self._status, self._headers, b"".join(self._body), self._job.request_id
            )
            self._job.response_whole(self._status, headers, len(body), body)
        else:
            self._spawn(self._complete(), "compat.complete")

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        """No response, or no more of it, will come."""
        self._writer = None
        again = self._again
        if is_stale and again is not None and not self._is_repeated:
            self._is_repeated = True
            self._ports.inference.open(again, self, is_fresh=True)
            return
        is_stale = is_stale and not self._is_asking_again
        self._job.response_broken(failure, is_stale=is_stale, defect=defect)

    def pause_writing(self) -> None:
        """The inference server reads slower than the client sends."""
        self._job.pause_writing()

    def resume_writing(self) -> None:
        """The inference server has caught up."""
        self._job.resume_writing()

    # The response of a request in compatibility mode

    def _accepted(self, body: bytes) -> None:
        """The inference server has told the client to ask again."""
        head = inner_head(ACCEPTED, self._headers, len(body))
        if head is None:
            self._job.failed(INTERNAL)
            return
        polling = self._polling or self._poll(asks_again=True)
        polling.asks_again = True
        polling.progressed(head + body)

    async def _complete(self) -> None:
        """Give the job the response, or where the client finds it."""
        job, folder = self._job, self._response_folder
        try:
            files = await self._compat.threads.run(artifacts, folder)
        except OSError as error:
            self._cannot("read the folder", INTERNAL.detail, error)
            job.failed(INTERNAL)
            return
        archive = self._archive
        if archive is None and not files:
            body = b"".join(self._body)
            is_bodiless = self._is_head or self._status in BODILESS_STATUSES
            length = self._announced if is_bodiless else len(body)
            job.response_whole(self._status, self._headers, length, body)
            return
        if archive is None:
            archive = self._archive = self._new_archive()
            archive.add(b"".join(self._body))
        try:
            location = await self._store(await archive.finish(folder, files))
        except (OSError, TransferError) as error:
            self._cannot("store a large response", INTERNAL.detail, error)
            job.failed(INTERNAL)
            return
        job.response_whole(_FOUND, [(LOCATION, location.encode())], 0, b"")

    async def _store(self, file: BinaryIO) -> str:
        """Store a large response; return where the client gets it. Raises `TransferError`."""
        job, transfers = self._job, self._compat.transfers
        control_plane, envelope = self._compat.control_plane, job.lease.envelope
        if control_plane is not None:
            urls = await control_plane.response_urls(job.envelope, envelope)
            await transfers.put(urls.upload, file, ZIP)
            return urls.download
        if envelope and decode_control_urls(envelope).large_response:
            raise TransferError("where clients get it, only NVCF's control plane knows")
        while True:
            client = await self._waiting_client()
            try:
                urls = await transfers.response_urls(client.envelope)
            except TokenUsed:
                if self._waits() is client:
                    raise TransferError("the gateway does not know the request") from None
                continue
            await transfers.put(urls.upload, file, ZIP)
            return urls.download

    async def _waiting_client(self) -> PolledClient:
        while (client := self._waits()) is None:
            self._client_changed.clear()
            await self._client_changed.wait()
        return client

    def _waits(self) -> PolledClient | None:
        return self._polling.client if self._polling is not None else None

    def _new_archive(self) -> Archive:
        writer = self._writer
        return Archive(
            self._compat.threads,
            self._compat.responses.root,
            f"{self._job.request_id}.response",
            lambda: writer.pause_reading() if writer is not None and self._writer else None,
            lambda: writer.resume_reading() if writer is not None and self._writer else None,
        )

    def _progressed(self, news: ProgressNews) -> None:
        if self._polling is not None:
            self._polling.progressed(progress_response(news))

    # The job's port to the gateway process

    def deliver(self, job: Delivery) -> None:
        """Deliver the job's response to the client that waits, or that comes next."""
        polling = self._polling
        if polling is None or self._is_over:
            self._ports.attach.deliver(job)
        else:
            polling.responded()

    def stream(self, job: Job, head: bytes, total_bytes: int | None) -> Post:
        """Deliver a response as it comes: its client waits, or it would not have been asked for."""
        if self._polling is not None:
            self._is_streaming = True
            self._polling.responded()
        return self._ports.attach.stream(job, head, total_bytes)

    def fetch(self, job: Job) -> Rest:
        """GET the rest of the body."""
        rest = self._rest = self._ports.attach.fetch(job)
        return rest

    async def may_run(
        self, envelope: Envelope, deliveries: int, *, is_running: bool
    ) -> RunDecision | None:
        """Ask the gateway whether to run a request."""
        return await self._ports.attach.may_run(envelope, deliveries, is_running=is_running)

    async def dropped_late(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway that a request was not started."""
        await self._ports.attach.dropped_late(envelope, deliveries)

    async def gave_back(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway that a request that is run once was not begun."""
        await self._ports.attach.gave_back(envelope, deliveries)

    async def broke_off(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway that the inference server broke off a request."""
        await self._ports.attach.broke_off(envelope, deliveries)

    # The job's port to the registry

    def bounded(self, request_id: str, ends_at: float) -> None:
        """The job may not run for longer than until ``ends_at``."""
        self._ports.registry.bounded(request_id, ends_at)

    def uploaded(self, request_id: str) -> None:
        """The body of the job is passed on."""
        self._ports.registry.uploaded(request_id)
        if self._polling is not None:
            self._polling.release(self._loop.time())

    def responding(self, request_id: str) -> None:
        """The response head of the job has come before its body."""
        self._ports.registry.responding(request_id)

    def freed(self, job: Job) -> None:
        """The inference server is done with the job."""
        is_timed = self._polling is None and self._mode is not Mode.COMPAT
        self._ports.registry.freed(job, is_timed=is_timed)

    def finished(self, request_id: str) -> None:
        """The job is over."""
        self._is_over = True
        if self._polling is not None:
            self._polling.end()
        if self._subscription is not None:
            self._subscription.unsubscribe()
            self._subscription = None
        self._compat.progress.remove(request_id)
        for task in self._tasks:
            task.cancel()
        self._body.clear()
        if self._archive is not None:
            spawn(self._archive.close(), "archive.close")
        if self._folders:
            self._compat.remove(self._folders)
        self._ports.registry.finished(request_id)

    # What polling brings about: `worker_agent.compat.polling.PollingPort`

    def listen(self) -> None:
        """Listen for polls."""
        self._spawn(self._listen(), "compat.listen")

    async def _listen(self) -> None:
        polling, request_id = self._polling, self._job.request_id
        if polling is None:
            return
        try:
            found = await self._ports.polls.listen_for_polls(request_id, self._on_poll)
        except QueueUnavailable as error:
            emit(_log, "polls.not_heard", logging.WARNING, request_id=request_id, error=str(error))
            polling.not_listening(self._loop.time())
            return
        if self._is_over:
            found.unsubscribe()
            return
        self._subscription = found
        polling.listening()

    def _on_poll(self, data: bytes, acknowledge: Callable[[], None]) -> None:
        polling, job = self._polling, self._job
        if polling is None:
            return
        try:
            envelope = decode_envelope(data)
        except EnvelopeError as error:
            self._ignore_poll(str(error))
            return
        if envelope.request_id != job.request_id:
            self._ignore_poll("it is for another request")
        elif not envelope.response_token or not self._compat.is_attachable(envelope.target_uri):
            self._ignore_poll("no address or token to respond with")
        elif not polling.has_room():
            self._ignore_poll("too many clients wait")
        else:
            acknowledge()
            now = self._loop.time()
            polling.polled(self._client_of(envelope, now), now)
            self._client_changed.set()

    def _ignore_poll(self, reason: str) -> None:
        emit(
            _log,
            "poll.ignored",
            logging.WARNING,
            request_id=self._job.request_id,
            reason=reason,
        )

    def post(self, client: PolledClient, response: bytes) -> None:
        """Deliver a 202 to a client."""
        self._job.postponed()
        self._early = EarlyResponse(self, self._job, client.envelope, response)
        self._ports.attach.deliver(self._early)

    def repeat(self, early: EarlyResponse) -> None:
        """Deliver a 202 again: its POST broke."""
        if early is self._early and not self._is_over:
            self._ports.attach.deliver(early)

    def early_delivered(self, early: EarlyResponse, *, is_delivered: bool) -> None:
        """The gateway process has a 202, or does not want it."""
        polling = self._polling
        if early is not self._early or polling is None or self._is_over:
            return
        lease, number = self._job.lease, early.envelope.channel_call
        if number and isinstance(lease, ChannelLease):
            # What follows does not concern the channel.
            lease.channel.forget(number)
        self._early = None
        now = self._loop.time()
        if is_delivered:
            polling.posted(now)
        else:
            polling.post_failed(now)
        self._client_changed.set()

    def wake_at(self, due_at: float | None) -> None:
        """Set, move or cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_at is not None and not self._is_over:
            self._timer = self._loop.call_at(due_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._polling is not None:
            self._polling.due()

    def ask_again(self, client: PolledClient) -> None:
        """Ask the inference server again, for a client."""
        job, envelope = self._job, client.envelope
        if job.state is not FORWARDING:
            return
        envelope.method, envelope.path = b"GET", job.envelope.path
        envelope.body, envelope.request_token = b"", None
        try:
            request = build_request(envelope, self._compat.platform_headers, time.time_ns())
        except RequestError as error:
            self._ignore_poll(str(error))
            job.failed(INTERNAL)
            return
        self._is_asking_again, self._is_repeated = True, False
        self._again = request
        self._ports.inference.open(request, self, is_fresh=False)

    def respond(self, client: PolledClient) -> None:
        """Deliver the response to a client."""
        job = self._job
        if client.envelope is not job.envelope:
            # The job's own token was used for a 202.
            job.envelope.target_uri = client.envelope.target_uri
            job.envelope.response_token = client.envelope.response_token
            job.envelope.channel_call = 0
        if not self._is_streaming:
            self._ports.attach.deliver(job)
        self._is_over = True

    def give_up(self) -> None:
        """Nobody polls."""
        emit(_log, "polls.missing", request_id=self._job.request_id)
        self._job.cancel()

    # Other

    def _poll(self, *, asks_again: bool) -> Polling:
        now = self._loop.time()
        envelope = self._job.envelope
        first = self._client_of(envelope, now)
        whole_s = poll_left_s(envelope, envelope.requested_at_ns)
        polling = self._polling = Polling(self, first, whole_s, EMPTY, asks_again=asks_again)
        return polling

    def _client_of(self, envelope: Envelope, now: float) -> PolledClient:
        left_s = poll_left_s(envelope, time.time_ns()) + self._ports.gate.offset.seconds
        return PolledClient(envelope, now + left_s)

    def _cannot(self, what: str, detail: str, error: Exception) -> None:
        emit(
            _log,
            "compat.failed",
            logging.WARNING,
            request_id=self._job.request_id,
            what=what,
            detail=detail,
            error=f"{type(error).__name__}: {error}",
        )

    def _spawn(self, coroutine: Coroutine[None, None, None], name: str) -> None:
        task = spawn(coroutine, name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail if a task of the call has failed: nothing else would end it soon."""
        if not task.cancelled() and task.exception() is not None:
            self._job.failed(INTERNAL)
