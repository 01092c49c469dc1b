"""Server addresses and logins for NATS.

Credentials are read again at every connect, because tokens and JWTs are renewed while we run.
"""

import base64
import importlib
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import unquote, urlsplit

from queueing.servers import Server, longest_pause_s

DEFAULT_PORT = 4222


class LoginError(Exception):
    """An address, a setting or a file for the login cannot be used."""


def parse_server(url: str) -> Server:
    """Return the server of ``[nats|tls://][user:password@|token@]host[:port]``.

    Raises `LoginError`.
    """
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise LoginError(f"{url!r}: {error}") from error
    if parts.scheme not in {"nats", "tls"} or not parts.hostname:
        raise LoginError(f"no NATS address: {url!r}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Server(parts.hostname, port, parts.scheme == "tls", user, password)


@dataclass(frozen=True, slots=True)
class Login:
    """One way to log in: the first field that is set, in their order.

    ``credentials_file`` contains a user JWT and its seed, ``credentials`` returns the two,
    ``nkey_seed`` is a seed alone. ``token`` may be a function. The functions are called at each
    connect.
    """

    credentials_file: Path | None = None
    credentials: Callable[[], tuple[str, str]] | None = None
    nkey_seed: str = field(default="", repr=False)
    token: str | Callable[[], str] = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)

    def fields(self, server: Server, nonce: str) -> dict[str, str]:
        """Return the members of CONNECT; ``nonce`` is the server's. Raises `LoginError`."""
        read = self.credentials
        if self.credentials_file is not None:
            read = partial(read_credentials, self.credentials_file)
        if read is not None:
            jwt, seed = read()
            return {"jwt": jwt, "sig": _sign(seed, nonce)[1]}
        if self.nkey_seed:
            public, signature = _sign(self.nkey_seed, nonce)
            return {"nkey": public, "sig": signature}
        if token := self.token() if callable(self.token) else self.token:
            return {"auth_token": token}
        if self.user:
            return {"user": self.user, "pass": self.password}
        if server.password:
            return {"user": server.user, "pass": server.password}
        return {"auth_token": server.user} if server.user else {}


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Options of one connection.

    ``tls`` is used for ``tls://`` addresses and when the server requires TLS; without it the
    system's certificate authorities are trusted. ``tls_first`` is for servers with
    ``handshake_first``. ``buffer_bytes`` bounds the frames that wait for a slow server; a send
    beyond it fails. ``lame_duck_jitter_s`` is the longest random delay before a server that
    announces its end is left. Reply subjects begin with ``inbox_prefix``. ``refused`` is called
    each time that a server does not accept the login while there is no other link.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    name: str = ""
    login: Login = Login()
    tls: ssl.SSLContext | None = None
    tls_first: bool = False
    connect_timeout_s: float = 5.0
    ping_interval_s: float = 10.0
    reconnect_min_s: float = 0.1
    reconnect_max_s: float = 5.0
    lame_duck_jitter_s: float = 5.0
    buffer_bytes: int = 32 << 20
    inbox_prefix: str = "_INBOX"
    refused: Callable[[], None] | None = None

    def delay_s(self, failures: int) -> float:
        """Return the longest wait after this many failures in a row."""
        return longest_pause_s(failures, self.reconnect_min_s, self.reconnect_max_s)


_SECTION = re.compile(
    r"-----BEGIN (NATS USER JWT|USER NKEY SEED)-----\s*([A-Za-z0-9_\-.=]+)\s*-+END"
)


def read_credentials(path: Path) -> tuple[str, str]:
    """Return (JWT, seed) of a ``.creds`` file. Raises `LoginError`."""
    try:
        found = dict(_SECTION.findall(path.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise LoginError(f"{path}: {error}") from error
    try:
        return found["NATS USER JWT"], found["USER NKEY SEED"]
    except KeyError as error:
        raise LoginError(f"{path}: no section {error}") from error


class _KeyPair(Protocol):
    public_key: bytes

    def sign(self, data: bytes) -> bytes: ...


def _sign(seed: str, nonce: str) -> tuple[str, str]:
    """Return (public key, signature) in the form of CONNECT."""
    try:
        # Imported only where it is needed: it loads libsodium.
        nkeys = importlib.import_module("nkeys")
    except ImportError as error:
        raise LoginError("nkey and JWT login need the package nkeys") from error
    try:
        pair = cast(_KeyPair, nkeys.from_seed(seed.strip().encode()))
        signature = pair.sign(nonce.encode())
    except Exception as error:
        # nkeys and libsodium raise classes of their own without a common base.
        raise LoginError(f"unusable nkey seed: {type(error).__name__}") from error
    return pair.public_key.decode(), base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
