"""The folder of an installation: keys, the files of the gateways, the files of each server.

    operator-keys.json        all keys: keep it where neither servers nor gateways are
    ca.key, ca.pem            with certificates of our own: the authority
    gateway/                  for each gateway: two logins, the operator's signing key, settings
    nats-1/, nats-2/, …       for each server: its configuration and, with TLS, its certificate

Files with secrets can be read by their owner only. What is written again when a key is rotated is
what `InstallationKeys` decides; `nats-server.conf` is written once, and then belongs to the user.
"""

import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from queueing.nats.accounts.callout_documents import CalloutAccount
from queueing.nats.setup.keys import InstallationKeys, SetupKeysError
from queueing.nats.setup.plan import SetupPlan, SetupPlanError, accounts_config
from runtime.certificates import (
    Certified,
    Validity,
    issue,
    make_authority,
    read_certified,
    write_certified,
)
from runtime.files import try_lock, write_private

_KEYS = "operator-keys.json"
_LOCK = ".lock"
_GATEWAY = "gateway"
_SETTINGS = "nats.toml"
_ACCOUNTS = "accounts.conf"
SERVER_CONFIG = "nats-server.conf"
_CA_KEY, _CA = "ca.key", "ca.pem"
_CERTIFICATE, _CERTIFICATE_KEY = "tls.crt", "tls.key"
_AUTHORITY_DAYS = 3650
_DAYS = 825


class GivenCertificate(NamedTuple):
    """PEM files of a certificate with its chain, its key, and the authority of a private one."""

    certificate: Path
    key: Path
    authority: Path | None


class Installation:
    """The folder of an installation that exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway = folder / _GATEWAY
        self.settings = self.gateway / _SETTINGS
        self.system_credentials = self.gateway / "system.creds"

    @property
    def servers(self) -> list[Path]:
        """The folders of the servers."""
        return sorted(file.parent for file in self.folder.glob(f"*/{SERVER_CONFIG}"))

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers' URLs. Raises OSError, KeyError and ValueError."""
        return tuple(tomllib.loads(self.settings.read_text())["nats"]["urls"])

    @property
    def ca_file(self) -> Path | None:
        """The authority that verifies the servers, `None` for those of the system."""
        file = self.gateway / _CA
        return file if file.exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from changing the folder. Raises `SetupPlanError` and OSError."""
        self._check_made()
        lock = try_lock(self.folder / _LOCK)
        if lock is None:
            raise SetupPlanError(f"Another command is changing {self.folder}: wait for its end.")
        with lock:
            yield

    def _check_made(self) -> None:
        if not (self.folder / _KEYS).exists():
            raise SetupPlanError(
                f"{self.folder} has no {_KEYS}: give a folder that 'gateway nats init' made."
            )

    def read_keys(self) -> InstallationKeys:
        """Return the keys. Raises `SetupPlanError` and OSError."""
        self._check_made()
        file = self.folder / _KEYS
        try:
            return InstallationKeys.read(file.read_text())
        except SetupKeysError as error:
            raise SetupPlanError(f"{file} cannot be read: {error}.") from error

    def write_keys(self, keys: InstallationKeys) -> list[Path]:
        """Write the keys, and then all that follows from them; return the files that changed.

        If it is cut short, another call with the same keys completes it. Raises OSError.
        """
        if _content(self.folder / _KEYS) != keys.text():
            write_private(self.folder / _KEYS, keys.text())
        accounts = accounts_config(keys) + CalloutAccount(keys.trusted_signing).server_config()
        contents = {
            self.gateway / "gateway.creds": keys.gateway_login.text(),
            self.system_credentials: keys.system_login.text(),
            self.gateway / "operator-signing.nk": keys.operator_signing + "\n",
            **{server / _ACCOUNTS: accounts for server in self.servers},
        }
        changed = [file for file, text in contents.items() if _content(file) != text]
        for file in changed:
            write_private(file, contents[file])
        return changed

    def renew_certificates(self, now: datetime) -> list[Path]:
        """Write new certificates for the same names; return the files that changed.

        Raises `SetupPlanError` unless the authority is ours, and OSError.
        """
        authority = read_certified(self.folder / _CA_KEY, self.folder / _CA)
        if authority is None:
            raise SetupPlanError(
                f"{self.folder} has no authority of its own ({_CA_KEY}): replace tls.crt and "
                "tls.key of each server by those that you get elsewhere."
            )
        changed: list[Path] = []
        for server in self.servers:
            files = server / _CERTIFICATE_KEY, server / _CERTIFICATE
            try:
                old = x509.load_pem_x509_certificate(files[1].read_bytes())
            except ValueError as error:
                raise SetupPlanError(f"{files[1]} is no certificate.") from error
            write_certified(*files, _issue(authority, server.name, list(_hosts(old)), now))
            changed += files
        return changed


def make_installation(
    folder: Path,
    plan: SetupPlan,
    keys: InstallationKeys,
    now: datetime,
    given: GivenCertificate | None = None,
) -> Installation:
    """Make ``folder``, which must not exist or be empty, all of it or nothing.

    With TLS, ``given`` is the certificate of all servers; without it they get their own, of an
    authority of our own. Raises `SetupPlanError` and OSError.
    """
    if not str(plan.path).isprintable():
        # Neither nats-server's configuration nor TOML has them in a text of one line.
        raise SetupPlanError("The path of the folder has characters that cannot be printed.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SetupPlanError(
            f"{folder} exists already, and nothing is overwritten: give another one."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.urandom(8).hex()}")
    partial.mkdir(mode=0o700)
    try:
        _fill(Installation(partial), plan, now, given)
        Installation(partial).write_keys(keys)
        # An empty folder is replaced; if it is not empty any more, this fails.
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Installation(folder)


def _fill(
    made: Installation, plan: SetupPlan, now: datetime, given: GivenCertificate | None
) -> None:
    made.gateway.mkdir(mode=0o700)
    write_private(made.settings, plan.gateway_settings())
    authority = None
    if plan.has_tls and given is None:
        authority = make_authority("gateway NATS authority", Validity(now, _AUTHORITY_DAYS))
        write_certified(made.folder / _CA_KEY, made.folder / _CA, authority)
    for node in plan.nodes:
        server = made.folder / node.name
        server.mkdir(mode=0o700)
        # With the password of the routes.
        write_private(server / SERVER_CONFIG, plan.server_config(node))
        if authority is not None:
            own = _issue(authority, node.name, [node.host], now)
            write_certified(server / _CERTIFICATE_KEY, server / _CERTIFICATE, own)
        elif given is not None:
            _check_given(given, plan, node.host, now)
            write_private(server / _CERTIFICATE_KEY, given.key.read_text())
            shutil.copyfile(given.certificate, server / _CERTIFICATE)
    trusted = given.authority if given is not None else made.folder / _CA
    if plan.has_ca and trusted is not None:
        for folder in (made.gateway, *made.servers):
            shutil.copyfile(trusted, folder / _CA)


def _issue(authority: Certified, name: str, hosts: list[str], now: datetime) -> Certified:
    # A server is a client of the others too.
    return issue(authority, name, hosts, Validity(now, _DAYS), is_client=True)


def _check_given(given: GivenCertificate, plan: SetupPlan, host: str, now: datetime) -> None:
    """Raise `SetupPlanError` for a certificate with which the servers would not work."""
    try:
        certificate = x509.load_pem_x509_certificate(given.certificate.read_bytes())
        key = serialization.load_pem_private_key(given.key.read_bytes(), None)
        if given.authority is not None:
            x509.load_pem_x509_certificates(given.authority.read_bytes())
    except (ValueError, TypeError) as error:
        raise SetupPlanError(
            "Certificate, key and CA must be PEM files, the key without a password."
        ) from error
    if key.public_key() != certificate.public_key():
        raise SetupPlanError(f"{given.key} is not the key of {given.certificate}.")
    if certificate.not_valid_after_utc <= now:
        raise SetupPlanError(f"{given.certificate} has expired.")
    names = set(_hosts(certificate))
    if host not in names and f"*.{host.partition('.')[2]}" not in names:
        raise SetupPlanError(
            f"{given.certificate} is for {', '.join(sorted(names)) or 'no host'}, not for {host}: "
            "clients would refuse the server."
        )
    if plan.is_cluster and not _may_be_client(certificate):
        raise SetupPlanError(
            f"{given.certificate} is for servers only (no clientAuth in its extended key usage): "
            "servers of a cluster connect to each other with it."
        )


def _hosts(certificate: x509.Certificate) -> Iterator[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from names.get_values_for_type(x509.DNSName)
    yield from map(str, names.get_values_for_type(x509.IPAddress))


def _may_be_client(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def _content(file: Path) -> str | None:
    return file.read_text() if file.exists() else None
