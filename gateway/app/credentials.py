"""The check of clients' credentials, in every process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.auth.authenticator import Authenticator
from gateway.auth.bootstrap import BootstrapCheck
from gateway.auth.jwt import Issuer, IssuerKeys
from gateway.auth.signing import TokenSigner, VerificationKeys
from gateway.domain.readmodel import ReadModel
from gateway.settings import JwtSettings
from gateway.store.meta import Apply, MetaFollower
from gateway.store.records import Store

if TYPE_CHECKING:
    from gateway.auth.jwks import JwksFetcher


@dataclass(frozen=True, slots=True)
class JwtOptions:
    """The issuer whose JWTs are accepted, and the URL of its keys."""

    issuer: Issuer
    jwks_url: str
    refresh_s: float = 300.0


class CredentialChecker:
    """Checks credentials, in every process. ``authenticate`` is synchronous.

    Wait for ``meta.loaded`` before serving clients, as for the read model's.
    """

    def __init__(
        self,
        store: Store,
        model: ReadModel,
        jwt: JwtOptions | None = None,
        signer: TokenSigner | None = None,
        *followers: Apply,
    ) -> None:
        """``signer`` is the process's own, if it has one. ``followers`` get the same documents."""
        signers, check = VerificationKeys(signer), BootstrapCheck()
        self.meta = MetaFollower(store, signers.apply, check.apply, *followers)
        issuer_keys = None if jwt is None else IssuerKeys(jwt.issuer)
        self.jwks = None
        if jwt is not None and issuer_keys is not None:
            self.jwks = _fetcher(issuer_keys, jwt)
        self.authenticate = Authenticator(model, signers, check, issuer_keys).authenticate

    def start(self) -> None:
        """Begin to follow the store and the issuer, as soon as they can be reached."""
        self.meta.start()
        if self.jwks is not None:
            self.jwks.start()

    async def stop(self) -> None:
        """Stop following both."""
        if self.jwks is not None:
            await self.jwks.stop()
        await self.meta.stop()


def _fetcher(keys: IssuerKeys, jwt: JwtOptions) -> "JwksFetcher":
    # Imported here: its HTTP client takes 10 MiB, and most gateways have no issuer.
    from gateway.auth.jwks import JwksFetcher  # noqa: PLC0415

    return JwksFetcher(keys, jwt.jwks_url, jwt.refresh_s)


def jwt_options(jwt: JwtSettings) -> JwtOptions | None:
    """Return the configured issuer, `None` if there is none."""
    if not jwt.issuer:
        return None
    return JwtOptions(Issuer(jwt.issuer, jwt.audiences), jwt.jwks_url, jwt.refresh_s)
