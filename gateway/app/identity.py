"""Issuing of credentials, in the processes that serve the API."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from gateway.api import bootstrap
from gateway.api.bootstrap import Adoption
from gateway.api.identity import Identity
from gateway.api.secrets.master_key import MasterKeyError, key_of, load_or_make, read_private
from gateway.api.secrets.sealed_list import RegistryCredentials, Seal, TelemetryEndpoints
from gateway.api.secrets.secret_store import SecretStore
from gateway.auth.bootstrap import RANDOM_BYTES as SECRET_BYTES
from gateway.auth.bootstrap import is_secret
from gateway.auth.sealing import SecretBox
from gateway.auth.signing import MASTER_BYTES, TokenSigner, derive_key
from gateway.auth.tokens import WorkerIdentity, mint, worker_principal
from gateway.domain.lifecycle import timestamp
from gateway.settings import ControlSettings
from gateway.store.account_store import AccountStores, WaitUntilShown
from gateway.store.credential_store import CredentialStore
from gateway.store.records import Store
from gateway.webhooks.secrets import WebhookSecrets
from runtime.events import emit
from runtime.ids import new_uuid

_log = logging.getLogger("gateway.bootstrap")


class Master:
    """The master key, and the keys derived from it.

    Raises `gateway.api.secrets.master_key.MasterKeyError`.
    """

    def __init__(self, key_file: Path, key: str = "") -> None:
        """``key`` is the master key in base64; if it is empty, the file has it, or is made."""
        if key:
            self.key = key_of(key.encode(), "control.secrets_key")
        else:
            self.key = load_or_make(key_file, os.urandom(MASTER_BYTES))
        self.signer = TokenSigner(self.key)

    def secret_store(self, stores: AccountStores) -> SecretStore:
        """Return the secrets of function versions, for the API and for the reconciler."""
        sealer = SecretBox(derive_key(self.key, "secrets of functions"))
        return SecretStore(stores, sealer, time.time, os.urandom)

    def telemetry_endpoints(self, stores: AccountStores) -> TelemetryEndpoints:
        """Return the telemetry endpoints of accounts, for the API and for the reconciler."""
        return TelemetryEndpoints(self._account_seal(stores))

    def registry_credentials(self, stores: AccountStores) -> RegistryCredentials:
        """Return the registry credentials of accounts, for the API and for the reconciler."""
        return RegistryCredentials(self._account_seal(stores))

    def _account_seal(self, stores: AccountStores) -> Seal:
        box = SecretBox(derive_key(self.key, "secrets of accounts"))
        return Seal(stores, box, time.time, os.urandom)

    def webhook_secrets(self, store: Store) -> WebhookSecrets:
        """Return the secrets with which webhooks are signed."""
        sealer = SecretBox(derive_key(self.key, "secrets of webhooks"))
        return WebhookSecrets(store, sealer, time.time, os.urandom)

    def worker_token(self, worker: WorkerIdentity, now: float, lifetime_s: float) -> str:
        """Return a token with which the worker of an instance connects."""
        token_id = new_uuid()
        principal = worker_principal(worker)
        return mint(self.signer, principal, now=now, lifetime_s=lifetime_s, token_id=token_id)

    async def begin(self, store: Store, given: str = "") -> str | None:
        """Prepare the store on the first start; return the bootstrap secret if it was made now.

        None is made if one is ``given``, by the settings. Raises `MasterKeyError` when the store
        knows another master key, and `StoreUnavailable`.
        """
        at = timestamp(time.time())
        if given:
            adoption = await bootstrap.begin_with(store, self.key, self.signer, given, at)
            if adoption is Adoption.REPLACED:
                emit(_log, "bootstrap.secret_replaced")
            elif adoption is Adoption.REFUSED:
                emit(_log, "bootstrap.secret_outdated", logging.WARNING)
            return None
        random = os.urandom(SECRET_BYTES)
        return await bootstrap.begin(store, self.key, self.signer, random, at)


def master_of(control: ControlSettings) -> Master:
    """Return the master key of the settings. Raises `MasterKeyError`."""
    key = control.secrets_key
    return Master(control.secrets_key_file, "" if key is None else key.get_secret_value())


def given_secret(control: ControlSettings) -> str:
    """Return the bootstrap secret of the settings, empty for none. Raises `MasterKeyError`."""
    if control.bootstrap_secret_file is not None:
        source = str(control.bootstrap_secret_file)
        secret = read_private(control.bootstrap_secret_file).decode("ascii", "replace").strip()
    elif control.bootstrap_secret:
        source, secret = (
            "control.bootstrap_secret",
            control.bootstrap_secret.get_secret_value().strip(),
        )
    else:
        return ""
    if not is_secret(secret):
        raise MasterKeyError(
            f"{source} does not hold nvboot- and 43 to 128 letters, digits, - and _"
        )
    return secret


def show(secret: str, stream: TextIO = sys.stderr) -> None:
    """Print the bootstrap secret. Not to the log, which is stored and read elsewhere."""
    stream.write(
        f"\nBootstrap secret: {secret}\n"
        "It makes admin tokens (POST /v1/admin/keys) and is not shown again.\n\n"
    )
    stream.flush()


def identity_of(master: Master, store: Store, wait_until_shown: WaitUntilShown) -> Identity:
    """Return what the routes about accounts, keys and tokens depend on."""
    return Identity(CredentialStore(store, wait_until_shown), master.signer, os.urandom)
