"""The sections ``[nats]`` of both programs' settings."""

from pathlib import Path
from typing import Annotated

from queueing.nats.login import LoginError, parse_server
from runtime.setting_rules import After, ExistingFile, Matching, NotEmpty, SecretText
from runtime.settings import Section


def _server_url(url: str) -> str:
    try:
        parse_server(url)
    except LoginError as error:
        # The URL is not in the message: it may contain a password.
        raise ValueError("not a NATS server (write nats://host:port or tls://host:port)") from error
    return url


ServerUrl = Annotated[str, After(_server_url)]


class GatewayNatsSettings(Section):
    """The connection to the NATS cluster of queue and store; at most one credential is needed."""

    urls: Annotated[tuple[ServerUrl, ...], NotEmpty()] = ("nats://127.0.0.1:4222",)
    """Servers of one cluster: nats:// or tls:// URLs."""
    credentials_file: Path | None = None
    """File with user JWT and nkey seed (.creds)."""
    token: SecretText | None = None
    """Token, in place of credentials_file."""
    user: str = ""
    """User name, in place of credentials_file; needs password."""
    password: SecretText | None = None
    """Password of user."""
    operator_seed_file: ExistingFile | None = None
    """File with the operator's seed, or that of one of its signing keys. With it, and with
    system_credentials_file, the workers of each function version get an account of their own."""
    system_credentials_file: ExistingFile | None = None
    """File with a login to the system account, through which these accounts are published."""
    callout: bool = False
    """Whether NVCF's workers are let in by their token (an auth callout). It needs the three files,
    and one line more in the configuration of the NATS servers (docs/nvidia-workers.md)."""
    region_tag: Annotated[
        str, Matching(r"[A-Za-z0-9_-]*", "consist of letters, digits, - and _")
    ] = ""
    """Tag by which servers say their region: with region, the queues of eu are placed on servers
    with server_tags: ["region:eu"]. Empty: queues are placed on any server."""
    ca_file: ExistingFile | None = None
    """CA certificates (PEM) that verify the servers; unset: those of the system."""


class WorkerNatsSettings(Section):
    """The connection to the NATS cluster that holds the queue; the first credential set is used."""

    urls: Annotated[tuple[str, ...], NotEmpty()] = ("nats://127.0.0.1:4222",)
    """Servers of one cluster: nats:// or tls:// URLs."""
    credentials_file: Path | None = None
    """File with user JWT and nkey seed (.creds)."""
    nkey_seed: SecretText | None = None
    """Nkey seed, in place of credentials_file."""
    worker_token: SecretText | None = None
    """Token in place of credentials_file, sent in the format that NVCF's auth callout reads."""
    token: SecretText | None = None
    """Token in place of credentials_file, sent unchanged."""
    ca_file: ExistingFile | None = None
    """CA certificates (PEM) that verify the servers; unset: those of the system."""
