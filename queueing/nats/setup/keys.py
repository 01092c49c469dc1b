"""The keys of an installation on NATS, what they sign, and their rotation. Pure.

    operator ──▶ operator's signing key ──▶ gateway's account ──▶ its signing key ──▶ gateway user
                                      └───▶ system account ─────────────────────────▶ system user
                                      └───▶ accounts of versions (the gateway makes them)

The gateways have the operator's signing key and the two users, and the servers have documents
only. All other keys stay with `InstallationKeys`, which the operator of the platform keeps apart.

A key is rotated in two steps, between which the old and the new one are valid: `rotate` makes the
new one, `retire` ends the old one.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

import orjson

from queueing.nats.accounts.jwt import (
    Role,
    Signer,
    UserCredentials,
    account_jwt,
    operator_jwt,
    read_claims,
)
from queueing.nats.accounts.users import gateway_account, gateway_user, system_user

_FORMAT = 1
Random = Callable[[int], bytes]


class SetupKeysError(Exception):
    """A rotation that is not possible now, or a file of keys that cannot be read."""


class RotatedKey(StrEnum):
    """What can be rotated."""

    OPERATOR = "operator"
    OPERATOR_SIGNING = "operator-signing"
    ACCOUNT_SIGNING = "account-signing"
    GATEWAY_USER = "gateway-user"
    SYSTEM_USER = "system-user"


@dataclass(frozen=True, slots=True)
class InstallationKeys:
    """Seeds, and the documents of the two users.

    ``old_…`` are those that a rotation has replaced and not yet ended, of users their public keys;
    empty if there are none. ``revoked_…`` are public keys of users that have ended, and when.
    ``at`` is the time of the last change, in Unix seconds, and ``account_at`` and ``system_at`` are
    the times of the documents of the two accounts: a document that is published with another time
    is a change for the servers, which drop waiting pulls
    (`findings/nats_account_update_drops_pulls.sh`).
    """

    operator: str = field(repr=False)
    operator_signing: str = field(repr=False)
    account: str = field(repr=False)
    account_signing: str = field(repr=False)
    system: str = field(repr=False)
    gateway_jwt: str = field(repr=False)
    gateway_seed: str = field(repr=False)
    system_jwt: str = field(repr=False)
    system_seed: str = field(repr=False)
    at: int
    account_at: int
    system_at: int
    old_operator: str = field(default="", repr=False)
    old_operator_signing: str = field(default="", repr=False)
    old_account_signing: str = field(default="", repr=False)
    old_gateway_user: str = ""
    old_system_user: str = ""
    revoked_gateway_users: Mapping[str, int] = field(default_factory=dict)
    revoked_system_users: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """Return the content of their file."""
        return orjson.dumps(
            {"format": _FORMAT, **asdict(self)}, option=orjson.OPT_INDENT_2
        ).decode()

    @classmethod
    def read(cls, text: str) -> "InstallationKeys":
        """Return the keys in a file. Raises `SetupKeysError`."""
        try:
            found = orjson.loads(text)
            if found.pop("format") != _FORMAT:
                raise SetupKeysError("its format is that of another version of this program")
            for name in ("account_at", "system_at"):
                # Of an earlier release.
                found.setdefault(name, found["at"])
            names = {one.name for one in fields(cls)}
            return cls(**{name: value for name, value in found.items() if name in names})
        except (KeyError, TypeError, AttributeError, orjson.JSONDecodeError) as error:
            raise SetupKeysError("it is damaged") from error

    @property
    def account_id(self) -> str:
        """The public key of the gateway's account."""
        return Signer(self.account).public

    @property
    def system_id(self) -> str:
        """The public key of the system account."""
        return Signer(self.system).public

    @property
    def gateway_login(self) -> UserCredentials:
        """The gateways' login."""
        return UserCredentials(self.gateway_jwt, self.gateway_seed)

    @property
    def system_login(self) -> UserCredentials:
        """The gateways' login to the system account."""
        return UserCredentials(self.system_jwt, self.system_seed)

    @property
    def trusted_signing(self) -> str:
        """The signing key of the operator that all servers know.

        While the operator or its signing key is being replaced that is the old one: servers that
        were not restarted since do not know the new one.
        """
        return self.old_operator_signing or self.operator_signing

    def operator_documents(self) -> list[str]:
        """Return the documents of the operator, and of the one that is being replaced."""
        found = [self._operator_document(self.operator, self.operator_signing)]
        if self.old_operator:
            found.append(self._operator_document(self.old_operator, self.old_operator_signing))
        elif self.old_operator_signing:
            found = [
                self._operator_document(
                    self.operator, self.operator_signing, self.old_operator_signing
                )
            ]
        return found

    def account_documents(self) -> dict[str, str]:
        """Return the documents of the gateway's and the system account by their public keys."""
        signer = Signer(self.trusted_signing)
        signing = [self.account_signing, self.old_account_signing]
        system: dict[str, Any] = {}
        if self.revoked_system_users:
            system = {"revocations": dict(self.revoked_system_users)}
        return {
            self.account_id: gateway_account(
                signer,
                self.account_id,
                self.account_at,
                [Signer(seed).public for seed in signing if seed],
                self.revoked_gateway_users,
            ),
            self.system_id: account_jwt(signer, self.system_id, "system", self.system_at, system),
        }

    def _operator_document(self, seed: str, *signing: str) -> str:
        public = [Signer(one).public for one in signing]
        return operator_jwt(Signer(seed), "gateway", self.system_id, self.at, public)

    def rotate(self, key: RotatedKey, random: Random, now: int) -> "InstallationKeys":
        """Return the keys with a new one in place of ``key``, which stays valid.

        Raises `SetupKeysError` if that rotation has begun already.
        """
        self._check_none_begun(key)
        at = max(now, self.at + 1)
        new = replace(self, at=at)
        match key:
            case RotatedKey.OPERATOR:
                return replace(
                    new,
                    operator=_seed(Role.OPERATOR, random),
                    operator_signing=_seed(Role.OPERATOR, random),
                    old_operator=self.operator,
                    old_operator_signing=self.operator_signing,
                )
            case RotatedKey.OPERATOR_SIGNING:
                signing = _seed(Role.OPERATOR, random)
                return replace(
                    new, operator_signing=signing, old_operator_signing=self.operator_signing
                )
            case RotatedKey.ACCOUNT_SIGNING:
                signing = _seed(Role.ACCOUNT, random)
                new = replace(
                    new,
                    account_signing=signing,
                    old_account_signing=self.account_signing,
                    account_at=at,
                )
                return _with_gateway_user(new, random)
            case RotatedKey.GATEWAY_USER:
                return _with_gateway_user(new, random)
            case RotatedKey.SYSTEM_USER:
                login = system_user(Signer(self.system), random(32), at)
                return replace(
                    new,
                    system_jwt=login.jwt,
                    system_seed=login.seed,
                    old_system_user=subject_of(self.system_jwt),
                )

    def retire(self, key: RotatedKey, now: int) -> "InstallationKeys":
        """Return the keys without the one that `rotate` has replaced.

        Raises `SetupKeysError` if there is none.
        """
        if key != self.begun():
            raise SetupKeysError(f"the rotation of {key} has not begun")
        at = max(now, self.at + 1)
        match key:
            case RotatedKey.OPERATOR | RotatedKey.OPERATOR_SIGNING:
                return replace(
                    self,
                    at=at,
                    account_at=at,
                    system_at=at,
                    old_operator="",
                    old_operator_signing="",
                )
            case RotatedKey.ACCOUNT_SIGNING | RotatedKey.GATEWAY_USER:
                revoked = {**self.revoked_gateway_users, self.old_gateway_user: at}
                return replace(
                    self,
                    at=at,
                    account_at=at,
                    old_account_signing="",
                    old_gateway_user="",
                    revoked_gateway_users=revoked,
                )
            case RotatedKey.SYSTEM_USER:
                revoked = {**self.revoked_system_users, self.old_system_user: at}
                return replace(
                    self, at=at, system_at=at, old_system_user="", revoked_system_users=revoked
                )

    def begun(self) -> RotatedKey | None:
        """Return what is being rotated."""
        if self.old_operator:
            return RotatedKey.OPERATOR
        if self.old_operator_signing:
            return RotatedKey.OPERATOR_SIGNING
        if self.old_account_signing:
            return RotatedKey.ACCOUNT_SIGNING
        if self.old_gateway_user:
            return RotatedKey.GATEWAY_USER
        return RotatedKey.SYSTEM_USER if self.old_system_user else None

    def _check_none_begun(self, key: RotatedKey) -> None:
        begun = self.begun()
        if begun is key:
            raise SetupKeysError(f"the rotation of {key} has begun already: end it with --finish")
        if begun is not None:
            raise SetupKeysError(
                f"{key} cannot be rotated before the rotation of {begun} is finished"
            )


def make_keys(random: Random, now: int) -> InstallationKeys:
    """Return the keys of a new installation."""
    account, signing = _seed(Role.ACCOUNT, random), _seed(Role.ACCOUNT, random)
    system = _seed(Role.ACCOUNT, random)
    gateway_login = gateway_user(Signer(signing), random(32), now, Signer(account).public)
    system_login = system_user(Signer(system), random(32), now)
    return InstallationKeys(
        operator=_seed(Role.OPERATOR, random),
        operator_signing=_seed(Role.OPERATOR, random),
        account=account,
        account_signing=signing,
        system=system,
        gateway_jwt=gateway_login.jwt,
        gateway_seed=gateway_login.seed,
        system_jwt=system_login.jwt,
        system_seed=system_login.seed,
        at=now,
        account_at=now,
        system_at=now,
    )


def subject_of(jwt: str) -> str:
    """Return the public key that a document is about."""
    return str(read_claims(jwt)["sub"])


def _seed(role: Role, random: Random) -> str:
    return Signer.of(role, random(32)).seed


def _with_gateway_user(keys: InstallationKeys, random: Random) -> InstallationKeys:
    """Return ``keys`` with a new gateway user, signed by the account's present signing key."""
    login = gateway_user(Signer(keys.account_signing), random(32), keys.at, keys.account_id)
    return replace(
        keys,
        gateway_jwt=login.jwt,
        gateway_seed=login.seed,
        old_gateway_user=subject_of(keys.gateway_jwt),
    )
