"""Lets workers of NVCF in to NATS by their token: a gateway process's part of the auth callout.

All processes with the API share the requests (queue group). A refused token is responded to at
once. Else the account of the version's workers is published first, as at each issue of our own
workers' logins (`queueing.nats.accounts.credentials`): a worker of NVCF logs in before it makes any
other call. At most `_MAX_CHECKS` are in progress; more are refused, and their workers connect
again.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from queueing.interface import (
    CredentialsError,
    LoginCheck,
    QueueUnavailable,
    TokenRefused,
    WorkerConnection,
    WorkerLogin,
)
from queueing.nats import presence
from queueing.nats.accounts.callout_documents import (
    CALLOUT_SUBJECT,
    CalloutAccount,
    CalloutRequest,
    read_callout,
    worker_token,
)
from queueing.nats.accounts.credentials import (
    AccountKeys,
    LoginFiles,
    publish_account,
)
from queueing.nats.accounts.nvcf_users import NvcfUsers
from queueing.nats.connection import NatsConnection
from queueing.nats.login import ConnectionOptions, Login
from runtime.events import emit
from runtime.line_budget import LineBudget
from runtime.metrics import MetricRegistry
from runtime.tasks import spawn

_GROUP = b"gateway"
_MAX_CHECKS = 256
_LINES_PER_S = 5

_log = logging.getLogger("queueing.nats.callout")


class NatsCallout:
    """A `queueing.interface.LoginCallout`, with two connections of its own."""

    def __init__(
        self,
        files: LoginFiles,
        options: ConnectionOptions,
        regions: Sequence[str],
        check: LoginCheck,
        registry: MetricRegistry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``options`` are those of the gateway's other connections. Raises `CredentialsError`."""
        keys = AccountKeys.read(files)
        try:
            self._users = NvcfUsers(*keys, regions)
            self._callout = CalloutAccount(keys.operator_seed)
        except ValueError as error:
            raise CredentialsError(f"the auth callout cannot be made: {error}") from error
        self._check = check
        self._clock = clock
        system = Login(credentials_file=files.system_credentials)
        self._system = NatsConnection(replace(options, name="gateway-logins", login=system))
        own = self._callout.login()
        login = Login(credentials=lambda: (own.jwt, own.seed))
        self._requests = NatsConnection(replace(options, name="gateway-callout", login=login))
        self._checks = 0
        self._lines = LineBudget(_LINES_PER_S)
        logins = registry.counter(
            "gateway_worker_logins_total",
            "Logins of NVCF's workers to NATS by outcome: admitted, refused, failed",
            ("outcome",),
        )
        self._admitted, self._refused, self._failed = map(
            logins.child, ("admitted", "refused", "failed")
        )

    def start(self) -> None:
        """Begin to connect, and to respond to requests once the account is published."""
        self._requests.subscribe(CALLOUT_SUBJECT, self._on_request, _GROUP)
        self._system.add_listener(self)
        self._system.start()

    async def wait_ready(self) -> None:
        """Return as soon as requests are taken."""
        await self._requests.wait_connected()
        await self._requests.flush()

    async def close(self) -> None:
        """End both connections."""
        self._system.remove_listener(self)
        await self._requests.close()
        await self._system.close()

    async def listening_workers(self, version_id: str) -> list[WorkerConnection]:
        """Return the connections of the version's workers that listen to cancels.

        Raises `QueueUnavailable`, also if the login to the system account may not ask.
        """
        account = self._users.account_id(version_id)
        return await presence.listening_workers(self._system, account, version_id)

    async def disconnect(self, worker: WorkerConnection) -> None:
        """End a worker's connection. Raises `QueueUnavailable`."""
        await presence.disconnect(self._system, worker)

    def connected(self) -> None:
        """Publish the account again: this server may not have it."""
        spawn(self._publish(), "nats-callout")

    def disconnected(self) -> None:
        """Nothing: requests are refused until there is a connection."""

    async def _publish(self) -> None:
        try:
            await publish_account(self._system, self._callout.document())
        except QueueUnavailable as error:
            emit(_log, "nats.callout_unavailable", logging.WARNING, error=str(error))
        else:
            self._requests.start()

    def _on_request(self, _subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        try:
            request = read_callout(payload)
        except ValueError as error:
            emit(_log, "nats.callout_invalid", logging.WARNING, error=str(error))
            return
        if self._checks >= _MAX_CHECKS:
            self._failed.value += 1
            self._refuse(request, reply, "too many logins at once")
            return
        try:
            login = self._check(worker_token(request.token))
        except (TokenRefused, ValueError) as error:
            self._refused.value += 1
            self._refuse(request, reply, str(error))
        else:
            self._checks += 1
            spawn(self._admit(request, reply, login), "nats-callout-login")

    async def _admit(self, request: CalloutRequest, reply: bytes, login: WorkerLogin) -> None:
        try:
            account = self._users.account(login.version_id, login.deployment_id)
            await publish_account(self._system, account)
        except QueueUnavailable as error:
            self._failed.value += 1
            self._refuse(request, reply, str(error))
            return
        finally:
            self._checks -= 1
        now = int(self._clock())
        user = self._users.user(login, request.public_key, now)
        self._requests.publish(reply, self._callout.admit(request, user, now))
        self._admitted.value += 1

    def _refuse(self, request: CalloutRequest, reply: bytes, reason: str) -> None:
        now = self._clock()
        self._requests.publish(reply, self._callout.refuse(request, int(now)))
        self._lines.begin(int(now))
        if self._lines.takes("refused"):
            emit(
                _log,
                "nats.login_refused",
                logging.WARNING,
                reason=reason,
                client=request.name,
                host=request.host,
            )
