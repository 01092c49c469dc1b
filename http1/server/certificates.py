"""Certificates of a listener with TLS: one for each set of names, read again when files change.

A connection gets the certificate whose name it asks for (SNI, RFC 6066 §3), or the first one. TLS
1.2 and up; ALPN (RFC 7301) offers HTTP/2 and HTTP/1.1.
"""

import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

PROTOCOLS = ("h2", "http/1.1")


class CertificateFiles(NamedTuple):
    """A chain of certificates in PEM, the own one first, and the file with its key."""

    chain: Path
    key: Path


class CertificateError(OSError):
    """Certificates cannot be used; the text is one line for people."""


class Certificates:
    """The certificates of a listener. ``context`` is for its sockets.

    ``reload`` has to be called now and then, at best every few seconds.
    """

    def __init__(self, files: Sequence[CertificateFiles]) -> None:
        """Read ``files``, which are not empty. Raises `CertificateError`."""
        self._files = tuple(files)
        self.context = _new_context()
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._state: tuple[object, ...] = ()
        self.context.sni_callback = self._choose
        self.reload()

    def reload(self) -> bool:
        """Read the files again if one has changed; return whether. Raises `CertificateError`.

        New connections get the new certificates. On an error the old ones stay.
        """
        state = tuple(_state_of(path) for pair in self._files for path in pair)
        if state == self._state:
            return False
        self._state = state
        by_name: dict[str, ssl.SSLContext] = {}
        for pair in self._files:
            own = _new_context()
            _load(own, pair)
            for name in _names_of(pair.chain):
                by_name.setdefault(name, own)
        _load(self.context, self._files[0])
        self._by_name = by_name
        return True

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        """Give a connection the certificate of the name that it asks for."""
        if not name:
            return
        name = name.lower().rstrip(".")
        parent = name.partition(".")[2]
        context = self._by_name.get(name) or self._by_name.get(f"*.{parent}")
        if context is not None:
            connection.context = context


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(PROTOCOLS))
    return context


def _load(context: ssl.SSLContext, files: CertificateFiles) -> None:
    try:
        context.load_cert_chain(files.chain, files.key)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(
            f"{files.chain} and {files.key} are no certificate and its key: {_reason(error)}"
        ) from None


def _reason(error: OSError) -> str:
    return str(error.reason) if isinstance(error, ssl.SSLError) else error.strerror or str(error)


def _names_of(chain: Path) -> list[str]:
    """Return the DNS names of the first certificate, ``*.`` before those of any one label."""
    try:
        certificate = x509.load_pem_x509_certificates(chain.read_bytes())[0]
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    except (OSError, ValueError) as error:
        raise CertificateError(f"{chain} is no certificate: {error}") from None
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def _state_of(path: Path) -> object:
    """Return what changes when a file does; a mounted secret changes by its link."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
