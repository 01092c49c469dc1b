"""Everything that the gateway and the worker agent use of the queue's broker, as protocols.

There is one queue per function version and region. A gateway process publishes envelopes to it and
may withdraw them. Workers lease envelopes, extend their leases while they work, and acknowledge
them at the end. A request is delivered at least once: a lease that expires is delivered again.

A backend implements two entry points: `GatewayBroker` for a gateway process and `WorkerBroker` for
a worker. `queueing.open` makes them from settings. Times are seconds, subjects and payloads bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol


class QueueError(Exception):
    """The broker could not do what was asked."""


class QueueFull(QueueError):
    """The queue has reached its limit of requests or bytes."""


class QueueUnavailable(QueueError):
    """The broker cannot be reached, refused the request, or lost the contents of the queue."""


class NoResponder(QueueUnavailable):
    """No process subscribes to the subject of a `Bus.request`."""


class CredentialsError(Exception):
    """The files from which workers' credentials are made cannot be used."""


class RunDecision(Enum):
    """Whether a worker may run a request that was delivered to it again."""

    RUN = "run"
    RERUNNABLE = "rerunnable"
    """Run it; if the inference server breaks it off, another worker may run it: none has before."""
    LATER = "later"
    """Not now: give the lease back, and ask again at the next delivery."""
    NEVER = "never"
    """The request is over, or its client has the response head: end the lease."""


class PublishCallbacks(Protocol):
    """What the publisher of one request is called back with: at most one of the two, once.

    Neither is called after `FunctionQueue.withdraw`, `FunctionQueue.answered` or
    `FunctionQueue.forget`.
    """

    def publish_failed(self, error: QueueError) -> None:
        """The request is not in the queue: it was not accepted, or it was lost later."""

    def undeliverable(self) -> None:
        """The last permitted run ended without an acknowledgement."""


class LineState(NamedTuple):
    """What the broker knows of one queue at one moment, for all gateway processes together.

    ``epoch`` differs from one queue to its successor of the same name. ``deliveries`` counts all
    leases of the epoch, redeliveries included, ``delivered`` is the highest sequence that was
    leased.
    """

    epoch: str
    waiting: int
    leased: int
    deliveries: int
    delivered: int = 0


class OwnLine(NamedTuple):
    """What a process knows of its own requests in one queue, without asking the broker.

    ``sequence`` is the highest that the queue is known to have used, 0 if that is not known:
    sequences count the publishes of all processes, one by one. ``answered`` is the highest sequence
    for which `FunctionQueue.answered` was called, ``published`` counts this process's publishes,
    and ``waiting`` its requests that may wait for a lease.
    """

    sequence: int = 0
    answered: int = 0
    published: int = 0
    waiting: int = 0


class WaitingRequests(NamedTuple):
    """Requests of one process that wait in one queue.

    ``depth`` is how many, ``oldest_s`` how long the first of them has waited, in seconds.
    """

    version_id: str
    depth: int
    oldest_s: float


class FunctionQueue(Protocol):
    """The gateway's side of all queues of one region."""

    async def start(self) -> None:
        """Subscribe to what the broker reports. The connection may be up or down."""

    async def close(self) -> None:
        """Fail all requests of this process and unsubscribe; the connection stays open."""

    def publish(
        self,
        version_id: str,
        request_id: str,
        envelope: bytes,
        callbacks: PublishCallbacks,
        trace: bytes,
        *,
        runs: int = 0,
    ) -> None:
        """Add ``envelope`` to the queue of ``version_id``, which is created if it does not exist.

        A request is stored once, also if it is published again with the same id.
        ``trace`` is the value of ``traceparent``, or empty. ``runs`` is how often workers have run
        it, or may have, without the queue; if none is left, it is undeliverable. Never blocks and
        never raises for what the broker does: failures go to ``callbacks``, never before this
        method returns.
        """

    def withdraw(self, version_id: str, request_id: str) -> None:
        """Remove the request and send its id to every worker of the version as a cancel."""

    async def withdraw_expired(self, version_id: str, request_id: str) -> int | None:
        """Withdraw a request whose time is over; return the position that it had, 0 if leased.

        The position is that just before the withdrawal. It is None if it is not known, also because
        the request may have been leased between the two. Raises `QueueUnavailable`; the request is
        withdrawn then too.
        """

    def has_waiting(self, version_id: str) -> bool:
        """Return whether a request of this process may be waiting for a lease."""

    def leased(self, request_id: str) -> None:
        """A worker says that it has leased the request; those before it are leased too."""

    def has_waited(self, version_id: str, seconds: float) -> bool:
        """Return whether a request of this process may have waited for a lease for ``seconds``.

        False if it has no request older than that, or a younger one is answered already: requests
        are leased in order. Costs next to nothing: it is called for every invocation.
        """

    def own_line(self, version_id: str, delivered: int) -> OwnLine:
        """Return what this process knows of its own requests.

        Requests are leased in order, so none waits up to ``delivered``, a sequence that was leased,
        or before one that was answered. What was withdrawn waits no more.
        """

    def waiting(self) -> Iterator[WaitingRequests]:
        """Yield what waits of this process's requests, for each queue that it has in use.

        As of when the process last looked at the queue, at most about a second ago.
        """

    async def line(self, version_id: str) -> LineState:
        """Return what the broker knows of the queue. Raises `QueueUnavailable`."""

    def answered(self, request_id: str) -> None:
        """Keep no more of the request: a worker responds to it, and will remove it."""

    def forget(self, request_id: str) -> None:
        """Keep no more of the request: its queue is removed."""

    def may_run(self, request_id: str, deliveries: int) -> RunDecision:
        """Decide whether a worker may run a request of this process, and count the run.

        ``deliveries`` is `Lease.deliveries`, above 1: first deliveries are run without asking. A
        lease that was given back does not count. When every permitted run is used up, the
        publisher is told that the request is undeliverable.
        """

    def started(self, request_id: str) -> None:
        """A worker says that it runs the request: it is not lost with its queue.

        The worker repeats it while the request is lost, or the publisher is told of the loss.
        """

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the position of a request of this process: 1 = next to be leased.

        0 means leased or unknown. Counts the requests of all gateway processes of the region,
        without withdrawn ones; exact while nothing is published or leased. A request whose lease
        ended counts as leased. Raises `QueueUnavailable`.
        """

    def is_stored(self, request_id: str) -> bool:
        """Return whether the broker is known to have a request of this process, leased or not."""

    async def depth(self, version_id: str) -> int:
        """Return how many requests wait for a lease. Raises `QueueUnavailable`."""


PollHandler = Callable[[bytes, Callable[[], None]], None]
"""Called with the envelope of a poll, and with what acknowledges it to the gateway process."""


class Lease(Protocol):
    """A worker's right to work on one request, for a limited time.

    `ack`, `nak` and `term` end it; every call after that does nothing. None of them raises or
    waits. An end that cannot be sent now is sent when the broker is back, if the lease is still
    meaningful then.
    """

    envelope: bytes
    deliveries: int
    """How often the request has been delivered, this time included."""
    request_id: str

    def is_over(self) -> bool:
        """Whether this process stood still for so long that the lease may have ended meanwhile.

        The request may be another worker's then: do not begin it, and do not end the lease.
        """

    def followers(self) -> int:
        """Return how many requests waited in the queue when this one was leased."""

    def stored_at_ns(self) -> int:
        """Return when the broker stored the request, by its clock, in Unix nanoseconds.

        0 if that is not known, or once the lease has ended.
        """

    def is_first_known(self) -> bool:
        """Whether ``deliveries`` counts all of them.

        A broker that crashed has kept the request, and may have forgotten to whom it was delivered:
        it counts again from 1. So False for what was stored before the queue was last bound.
        """

    def in_progress(self) -> None:
        """Start the time of the lease again. Lost when the broker cannot be reached."""

    def ack(self) -> None:
        """Remove the request from the queue: the work is finished."""

    def nak(self, delay_s: float = 0.0) -> None:
        """End the lease unused, for redelivery after ``delay_s``. Does not count as a run."""

    def term(self) -> None:
        """Remove the request from the queue without redelivery: no worker can process it."""


class PullConsumer(Protocol):
    """A worker's side of the queue of one version in one region."""

    def start(self) -> None:
        """Subscribe to cancels and bind to the queue; the connection may be up or down."""

    def watch(
        self,
        on_standstill: Callable[[], None],
        on_loss: Callable[[], None],
        on_bound: Callable[[], None],
        renew: Callable[[], None],
        on_line: Callable[[], None],
    ) -> None:
        """Call these from now on.

        ``on_standstill``: the process, or its connection, stood still for nearly a lease or longer.
        Its leases may have ended; those that arrived unseen meanwhile are dropped. ``on_loss``: the
        queue has lost its requests, or may have: the gateways need to know which ones run.
        ``on_bound``: the queue was bound, for the first time or again. ``renew``: the leases are to
        be renewed, because of a standstill or a lost connection that was shorter than that, or
        because they have not been for longer than their duration permits. ``on_line``:
        `is_line_empty` has changed.
        """

    def want(self, free: int) -> None:
        """Set how many further requests may be run.

        Every lease that is handed over reduces the number by one; call this when it changes
        otherwise. 0 or less cancels open pulls; a request that arrives nevertheless gets a nak. A
        queue may lease a few requests more and hold them for moments, until there is room.
        """

    def taken(self) -> None:
        """One request less may be leased: its slot is taken otherwise. No pull is cancelled."""

    def is_line_empty(self) -> bool:
        """Return whether no request waited when the broker last said so, or let a pull wait."""

    def is_bound(self) -> bool:
        """Whether the queue has been found, so that requests can arrive."""

    async def listen_for_polls(self, request_id: str, on_poll: PollHandler) -> "Subscription":
        """Call ``on_poll`` for every poll of a leased request (`GatewayBroker.poll_worker`).

        Returns when the broker knows: no later poll is missed. Raises `QueueUnavailable`.
        """

    async def drain(self) -> None:
        """Ask for no further requests; none arrives after this returns.

        Leases and cancels continue.
        """

    async def close(self) -> None:
        """Drain, unsubscribe, and return when the last acknowledgements have been sent."""


class Load(NamedTuple):
    """The number of requests in the queues of one version at one moment."""

    waiting: int
    """Requests that wait for a lease."""
    leased: int
    is_complete: bool = True
    """Whether these are the requests of all regions: one that is away may have more."""

    @property
    def may_wait(self) -> bool:
        """Whether requests wait, as far as is known."""
        return self.waiting > 0 or not self.is_complete


class QueueAdmin(Protocol):
    """Administration of all queues, in each region of an installation.

    A version has a queue in each; their loads are added. Every method may raise `QueueUnavailable`,
    `ensure` only if the queue of the own region cannot be made.
    """

    async def ensure(self, version_id: str) -> None:
        """Create the queues unless they exist. Existing queues keep their configuration."""

    async def load(self, version_id: str) -> Load:
        """Return the load of the queue, 0 and 0 when it does not exist.

        A missing response from the broker is an error, never an empty queue; of another region
        it makes the load incomplete.
        """

    async def purge(self, version_id: str) -> None:
        """Remove every request, if the queue exists; no publisher is called back."""

    async def remove(self, version_id: str) -> None:
        """Remove the queue, if it exists."""

    async def version_ids(self) -> list[str]:
        """Return the ids of all versions that have a queue."""


MessageHandler = Callable[[bytes, bytes, bytes], None]
"""Called with the subject, the reply subject (empty when no reply is expected) and the payload."""


class Subscription(Protocol):
    """One subscription on a `Bus`."""

    def unsubscribe(self) -> None:
        """End it. Messages that are already under way may still be handled."""


class Bus(Protocol):
    """Messages between gateway processes: at most once, nothing is stored.

    A subject consists of tokens separated by dots. A process that is not connected misses a
    message.
    """

    def subscribe(self, subject: bytes, handler: MessageHandler) -> Subscription:
        """Call ``handler`` for every message, also after reconnects.

        The last token of ``subject`` may be ``*``, which matches any single token.
        """

    def publish(self, subject: bytes, payload: bytes) -> bool:
        """Send a message to all subscribers; return whether it could be sent.

        To respond to a request, publish to its reply subject.
        """

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> bytes:
        """Publish and return the payload of the first reply.

        Raises `NoResponder` at once when there is no subscriber, and `QueueUnavailable` for a
        missing reply or connection.
        """


class WorkerCredentials(Protocol):
    """Credentials for workers at the broker. Every method may raise `QueueUnavailable`."""

    def start(self, deployed: Callable[[], Iterable[str]]) -> None:
        """Begin to connect to the server that stores credentials.

        ``deployed`` returns the versions that may have workers: at a server that has lost their
        credentials they are made again.
        """

    async def close(self) -> None:
        """End that connection."""

    async def issue(
        self, version_id: str, deployment_id: str, instance_id: str, expires_at: float
    ) -> Mapping[str, object]:
        """Return new credentials, valid until ``expires_at`` in Unix seconds.

        They give access to the queue of the version only. The result is a document of JSON values
        whose members are added to the response to a worker's connect (`wire.worker_api`);
        `WorkerBroker` reads it.
        """

    async def remove(self, version_ids: Sequence[str]) -> None:
        """Revoke the credentials of all workers of these versions and end their connections."""


class WorkerLogin(NamedTuple):
    """What a worker's token admits it to: the queue of one version, until ``expires_at``.

    ``expires_at`` is in Unix seconds; ``name`` is shown to people who look at the broker.
    """

    version_id: str
    deployment_id: str
    name: str
    expires_at: float


class WorkerConnection(NamedTuple):
    """A worker's connection: its name, and what identifies it for the broker."""

    name: str
    server: str
    number: int


class TokenRefused(Exception):
    """A worker's token admits it to nothing. The text is for the log."""


LoginCheck = Callable[[str], WorkerLogin]
"""Returns what a worker token admits to. Raises `TokenRefused`."""


class LoginCallout(Protocol):
    """Lets workers in to the broker by their token alone, as NVCF's workers log in."""

    def start(self) -> None:
        """Begin to take the broker's requests."""

    async def close(self) -> None:
        """End that; workers that are in stay."""


class ConnectionListener(Protocol):
    """What is called when the connection to the broker changes."""

    def connected(self) -> None:
        """The connection is up; whatever was requested on an earlier one is void."""

    def disconnected(self) -> None:
        """The connection is lost; no response arrives to what was sent on it."""


class LoginListener(ConnectionListener, Protocol):
    """The same, of a connection with a login that the platform gave."""

    def refused(self) -> None:
        """The broker does not know the login any more. Called at each attempt to connect."""


POLL_RECEIPT_S = 10.0
"""So long a gateway process waits for the acknowledgement of a poll, as NVCF's does."""


class GatewayBroker(Protocol):
    """One gateway process's access to the broker: one connection and all that uses it."""

    @property
    def queue(self) -> FunctionQueue: ...

    @property
    def admin(self) -> QueueAdmin: ...

    @property
    def bus(self) -> Bus: ...

    def start(self) -> None:
        """Begin to connect; the connection is made again when it is lost, until `close`."""

    def is_connected(self) -> bool:
        """Whether a message can be sent now."""

    async def wait_connected(self) -> None:
        """Return as soon as there is a connection. Bound the wait with ``asyncio.timeout``."""

    async def poll_worker(
        self, version_id: str, request_id: str, envelope: bytes, timeout_s: float = POLL_RECEIPT_S
    ) -> None:
        """Send a further poll to the worker that has the request; return when it is acknowledged.

        On Redis that is when the server has handed it to the worker's connection. Raises
        `NoResponder` if no worker listens for polls of the request, and `QueueUnavailable` for a
        missing acknowledgement or connection.
        """

    def worker_environment(self) -> Mapping[str, str]:
        """Return the environment variables by which a worker of an instance finds the broker."""

    def worker_credentials(self) -> WorkerCredentials | None:
        """Return the issuer of workers' credentials, or `None` when none is configured.

        Raises `CredentialsError`.
        """

    def login_callout(self, check: LoginCheck) -> LoginCallout | None:
        """Return what lets workers in by their token, or `None` when it is not configured.

        Raises `CredentialsError`.
        """

    async def listening_workers(self, version_id: str) -> Sequence[WorkerConnection]:
        """Return the connections of NVCF's workers that listen to a version's cancels.

        Raises `QueueUnavailable`.
        """

    async def disconnect_worker(self, connection: WorkerConnection) -> None:
        """End a connection, if workers log in through the callout, which then refuses the next.

        Raises `QueueUnavailable`.
        """

    async def close(self) -> None:
        """Send what is buffered, then end the connection."""


class OtherRegions(NamedTuple):
    """Regions whose queues a worker serves while its own is empty, and who gets those leases."""

    names: Sequence[str]
    on_lease: Callable[[Lease], None]


class WorkerBroker(Protocol):
    """One worker's access to the broker."""

    def start(self) -> None:
        """Begin to connect; the connection is made again when it is lost, until `close`."""

    def is_connected(self) -> bool:
        """Whether a message can be sent now."""

    def add_listener(self, listener: LoginListener) -> None:
        """Report all changes of the connection from now on to ``listener``."""

    def consumer(
        self,
        region: str,
        on_lease: Callable[[Lease], None],
        on_cancel: Callable[[str], None],
        others: OtherRegions | None = None,
    ) -> PullConsumer:
        """Return the consumer of the worker's queue in ``region``, and in ``others``.

        ``on_lease`` gets every lease, at most as many as `PullConsumer.want` permits, those from
        other regions included; ``on_cancel`` the id of every cancelled request of the version,
        whichever worker has it.
        """

    async def renew(self) -> bool:
        """Log in again with the present credentials, without losing a message.

        Returns whether the new connection took over; if not, the old one continues.
        """

    async def close(self) -> None:
        """Send what is buffered, then end the connection."""


class EmbeddedBrokerError(Exception):
    """The embedded broker cannot be run."""


class EmbeddedBroker(Protocol):
    """A broker that `gateway dev` runs as a child process, for queue and store."""

    @property
    def name(self) -> str:
        """The name of the program."""

    @property
    def argv(self) -> list[str]: ...

    @property
    def environment(self) -> dict[str, str]:
        """What it needs in its environment."""

    @property
    def ready_line(self) -> str:
        """Text of the line of its output after which it accepts clients."""

    @property
    def listening_line(self) -> str:
        """Text of the line of its output that contains its port."""

    def url(self, line: str) -> str:
        """Return its URL; ``line`` is the whole line with `listening_line` in it."""

    def gateway_environment(self, url: str) -> dict[str, str]:
        """Return the environment of a gateway that uses the broker at ``url``."""
