"""The principal of a request: its account and what its credential permits."""

from typing import NamedTuple

from gateway.domain.model import FunctionVersion, ResourceScope
from gateway.domain.parties import party_of
from gateway.domain.readmodel import FunctionEntry

INVOKE = "invoke_function"
"""The scope that an invocation needs (`docs/wire.md` §15.3)."""
API_KEY = "key"
"""The kind of a principal whose credential is an API key."""
INVOCATION_TOKEN = "token"  # noqa: S105 - the name of a kind
"""The kind of a token with which functions can be invoked (`docs/wire.md` §14.4)."""


class Principal(NamedTuple):
    """The caller: an account, a subject within it, and the limits of the credential.

    ``kind`` is ``key`` (an API key), ``jwt`` (of the configured issuer), or a kind that the gateway
    issues itself: ``admin``, ``token`` (for invocations), ``worker``, ``registration``,
    ``bootstrap``. ``key_digest`` is the SHA-256 of the API key that the credential is or was made
    with; empty if there is none. A token that was made with an API key ends with that key.
    ``key_id`` is that key's id.
    """

    account: str
    subject: str
    scopes: frozenset[str]
    reach: ResourceScope
    kind: str = "key"
    key_digest: bytes = b""
    key_id: str = ""

    def sees(self, entry: FunctionEntry, version: FunctionVersion) -> bool:
        """Whether the version is visible: owned, public, or shared with account or subject."""
        return (
            version.account == self.account
            or is_public(entry, version)
            or self._is_among(version.shared_with)
            or (entry.function is not None and self._is_among(entry.function.shared_with))
        )

    def _is_among(self, parties: frozenset[str]) -> bool:
        return bool(parties) and (
            self.account in parties or party_of(self.account, self.subject) in parties
        )

    def may_invoke(self, entry: FunctionEntry, version: FunctionVersion, *, is_named: bool) -> bool:
        """Whether the credential permits invoking a version that the account sees."""
        return INVOKE in self.scopes and self.reaches(entry, version, is_named=is_named)

    def reaches(self, entry: FunctionEntry, version: FunctionVersion, *, is_named: bool) -> bool:
        """Whether the credential is valid for a version that the account sees.

        ``is_named``: the call names the version, not only its function. The resources of an API key
        do not limit access to public functions (`docs/wire.md` §14.3).
        """
        reach = self.reach
        if version.account == self.account:
            if reach.own:
                return True
        elif reach.shared or is_public(entry, version):
            return True
        if version.function_id in reach.functions:
            return True
        return is_named and f"{version.function_id}/{version.version_id}" in reach.versions


def is_public(entry: FunctionEntry, version: FunctionVersion) -> bool:
    """Whether every account may use the version."""
    return version.is_public or (entry.function is not None and entry.function.is_public)
