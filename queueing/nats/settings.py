"""The sections ``[nats]`` of both programs' settings."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, FilePath, SecretStr

from queueing.nats.login import LoginError, parse_server
from runtime.settings import Section


def _server_url(url: str) -> str:
    try:
        parse_server(url)
    except LoginError as error:
        # The URL is not in the message: it may contain a password.
        raise ValueError("not a NATS server (write nats://host:port or tls://host:port)") from error
    return url


ServerUrl = Annotated[str, AfterValidator(_server_url)]


class GatewayNatsSettings(Section):
    """The NATS servers of queue and store."""

    urls: Annotated[tuple[ServerUrl, ...], Field(min_length=1)] = ("nats://127.0.0.1:4222",)
    """nats:// or tls:// URLs of one cluster."""
    credentials_file: Path | None = None
    """User JWT and nkey seed."""
    token: SecretStr | None = None
    """Instead of credentials."""
    user: str = ""
    """Instead of credentials, with password."""
    password: SecretStr | None = None
    """Password of user."""
    operator_seed_file: FilePath | None = None
    """The operator's (signing) seed, for logins of their own for each version's workers."""
    system_credentials_file: FilePath | None = None
    """Login to the system account, for the same purpose."""
    ca_file: FilePath | None = None
    """Certificates that the servers' are checked against; unset: the system's."""


class WorkerNatsSettings(Section):
    """The NATS servers of the queue."""

    urls: Annotated[tuple[str, ...], Field(min_length=1)] = ("nats://127.0.0.1:4222",)
    """nats:// or tls:// URLs of one cluster."""
    credentials_file: Path | None = None
    """User JWT and nkey seed."""
    nkey_seed: SecretStr | None = None
    """Instead of credentials."""
    worker_token: SecretStr | None = None
    """Instead of credentials, in the form NVCF's auth callout reads."""
    token: SecretStr | None = None
    """Instead of credentials, sent unchanged."""
