"""The certificates of the addresses with TLS, for one gateway process."""

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from gateway.settings import TlsSettings
from http1.server.listener import Secure
from runtime.events import emit
from runtime.lifecycle import Ticker
from runtime.settings import SettingsError

if TYPE_CHECKING:
    from http1.server.certificates import Certificates

RELOAD_S = 5.0
"""How often the files are looked at."""

_log = logging.getLogger("gateway.tls")


def check(tls: TlsSettings) -> None:
    """Raise `SettingsError` for settings that do not fit together."""
    problems = []
    if tls.listen and not tls.certificates:
        problems.append("tls.certificates: is empty, and tls.listen is not")
    if tls.keys and len(tls.keys) != len(tls.certificates):
        problems.append("tls.keys: has not one file for each of tls.certificates")
    if problems:
        raise SettingsError(problems)


def open_certificates(tls: TlsSettings) -> "Certificates | None":
    """Return the certificates, `None` without TLS.

    Raises `http1.server.certificates.CertificateError`.
    """
    if not tls.listen:
        return None
    # Imported here: it takes 6 MiB, which a process without TLS saves.
    from http1.server.certificates import CertificateFiles, Certificates  # noqa: PLC0415

    keys = tls.keys or tls.certificates
    pairs = zip(tls.certificates, keys, strict=True)
    return Certificates([CertificateFiles(*pair) for pair in pairs])


def serve_tls(tls: TlsSettings, stack: AsyncExitStack) -> Secure | None:
    """Return what a listener needs for TLS; the files are read again when they change.

    Raises `http1.server.certificates.CertificateError`.
    """
    certificates = open_certificates(tls)
    if certificates is None:
        return None

    def reload() -> None:
        try:
            if certificates.reload():
                emit(_log, "tls.certificates_read")
        except OSError as error:
            # The old ones stay.
            emit(_log, "tls.certificates_unusable", logging.ERROR, reason=str(error))

    ticker = Ticker(RELOAD_S, reload)
    ticker.start()
    stack.callback(ticker.stop)
    return Secure(len(tls.listen), certificates.context)
