"""A worker's access to NATS: one connection and the consumer of its queue."""

import base64
import json
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from queueing.interface import Lease, LoginListener, OtherRegions
from queueing.nats.accounts.document import NatsLogin
from queueing.nats.away import AwayConsumer, RegionalConsumer
from queueing.nats.connection import NatsConnection
from queueing.nats.consumer import PullConsumer, PullOptions
from queueing.nats.login import ConnectionOptions, Login
from queueing.nats.metrics import register_worker_connection
from queueing.nats.settings import WorkerNatsSettings
from queueing.worker_metrics import register_consumer
from runtime.metrics import MetricRegistry
from runtime.setting_rules import SecretText
from wire.subjects import worker_inbox

_CALLOUT_INBOX = "_INBOX"
"""Reply subjects that begin with more than that are not permitted by every callout."""


class CalloutLogin(NamedTuple):
    """A login that NVCF's auth callout checks; the servers are those of the settings."""

    worker_token: str

    def __repr__(self) -> str:
        return "CalloutLogin"


class NatsWorkerBroker:
    """A `queueing.interface.WorkerBroker`."""

    def __init__(
        self,
        nats: WorkerNatsSettings,
        version_id: str,
        instance_id: str,
        registry: MetricRegistry,
        login: Callable[[], object | None],
    ) -> None:
        """``login`` returns the last login of the platform, `None` to use ``nats``.

        The first result decides between the kinds; later ones are used for each new connection.
        """
        self._version_id = version_id
        self._registry = registry
        options = connection_options(nats, version_id, instance_id)
        self._pulls = PullOptions()
        self._on_refused: Callable[[], None] = lambda: None
        first = login()
        if isinstance(first, NatsLogin):
            self._pulls = PullOptions(api=first.api, has_scoped_polls=True)
            credentials = Login(credentials=lambda: _credentials(login()))
            options = replace(
                options,
                servers=first.urls,
                login=credentials,
                refused=self._refused,
            )
        elif isinstance(first, CalloutLogin):
            token = Login(token=lambda: _callout_token(login()))
            options = replace(options, login=token, inbox_prefix=_CALLOUT_INBOX)
        self._connection = NatsConnection(options)
        register_worker_connection(registry, self._connection, options.servers)

    def start(self) -> None:
        """Begin to connect."""
        self._connection.start()

    def is_connected(self) -> bool:
        """Whether a message can be sent now."""
        return self._connection.is_connected()

    def add_listener(self, listener: LoginListener) -> None:
        """Call ``listener`` for all changes of the connection from now on."""
        self._on_refused = listener.refused
        self._connection.add_listener(listener)

    def consumer(
        self,
        region: str,
        on_lease: Callable[[Lease], None],
        on_cancel: Callable[[str], None],
        others: OtherRegions | None = None,
    ) -> PullConsumer | RegionalConsumer:
        """Return the consumer of the worker's queue in ``region``, and in ``others``."""
        home = PullConsumer(
            self._connection,
            region=region,
            version_id=self._version_id,
            on_lease=on_lease,
            on_cancel=on_cancel,
            options=self._pulls,
        )
        if others is None:
            register_consumer(self._registry, region, home.is_bound)
            return home
        away = [
            AwayConsumer(
                home,
                self._connection,
                region=name,
                version_id=self._version_id,
                on_lease=others.on_lease,
                options=self._pulls,
            )
            for name in others.names
        ]
        register_consumer(
            self._registry,
            region,
            home.is_bound,
            others.names,
            lambda: all(consumer.is_bound() for consumer in away),
        )
        return RegionalConsumer(home, away)

    async def renew(self) -> bool:
        """Log in again; the new connection takes over without losing a message."""
        return await self._connection.renew()

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()

    def _refused(self) -> None:
        self._on_refused()


def _credentials(login: object) -> tuple[str, str]:
    return (login.jwt, login.seed) if isinstance(login, NatsLogin) else ("", "")


def _callout_token(login: object) -> str:
    return callout_token(login.worker_token) if isinstance(login, CalloutLogin) else ""


def connection_options(
    nats: WorkerNatsSettings, version_id: str, instance_id: str
) -> ConnectionOptions:
    """Return the options of a worker's connection, with the login in its settings.

    The name is the one that NVCF's tools expect (``docs/wire.md`` §4.5).
    """
    token = _text(nats.token)
    if nats.worker_token is not None:
        token = callout_token(_text(nats.worker_token))
    login = Login(
        credentials_file=nats.credentials_file, nkey_seed=_text(nats.nkey_seed), token=token
    )
    return ConnectionOptions(
        servers=nats.urls,
        name=f"worker_{version_id}_{instance_id}",
        login=login,
        tls=ssl.create_default_context(cafile=nats.ca_file) if nats.ca_file else None,
        inbox_prefix=worker_inbox(version_id, instance_id),
    )


def callout_token(worker_token: str) -> str:
    """Return ``worker_token`` as NVCF's auth callout reads it (``docs/wire.md`` §4.5)."""
    document = {"account": "Worker", "pluginName": "webhook", "payload": worker_token}
    text = json.dumps(document, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _text(secret: SecretText | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
