from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.auth.authenticator import Authenticator
from gateway.auth.bootstrap import NAME as BOOTSTRAP
from gateway.auth.bootstrap import BootstrapCheck, document, new_secret
from gateway.auth.jwt import Issuer, IssuerKeys, IssuerUnavailable
from gateway.auth.keys import digest_of, new_key
from gateway.auth.signing import Claims, TokenSigner, VerificationKeys
from gateway.auth.tokens import WorkerIdentity, admin_of, invoker_of, mint, worker_principal
from gateway.domain.model import (
    EVERYTHING,
    Account,
    AccountKey,
    ApiKey,
    ApiKeyKey,
    Client,
    ClientKey,
    Removed,
    ResourceScope,
)
from gateway.domain.principal import Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import NotFound, Unauthenticated
from tests.support.jwks import AUDIENCE, NAME, TokenIssuer

NOW = 1_800_000_000.0
SECRET = new_key(bytes(range(32)))
KEY = ApiKey("id", digest_of(SECRET.encode()), "acme", "me", frozenset({"invoke_function"}))
BOOT = new_secret(bytes(32))
CLIENT = Client("client-1", "acme")
ACME = Account("acme", "Acme")


class CountedKeys(VerificationKeys):
    """Counts how often a signature is verified."""

    verifications = 0

    def verify(self, token: str, kid: object, audiences: Sequence[str]) -> Claims:
        self.verifications += 1
        return super().verify(token, kid, audiences)


class Door:
    """An authenticator with everything that it reads."""

    def __init__(self) -> None:
        self.model = ReadModel()
        self.model.apply(ACME)
        self.model.apply(Account("other", "Other"))
        self.signer = TokenSigner(bytes(32))
        self.signers = CountedKeys(self.signer)
        self.bootstrap = BootstrapCheck()
        self.bootstrap.apply(BOOTSTRAP, orjson.dumps(document(BOOT, "")))
        self.issuer = TokenIssuer()
        self.issuer_keys = IssuerKeys(Issuer(NAME, (AUDIENCE,)))
        self.authenticator = Authenticator(
            self.model, self.signers, self.bootstrap, self.issuer_keys
        )

    def who(self, credential: str, now: float = NOW) -> Principal:
        return self.authenticator.authenticate(b"Bearer " + credential.encode(), now)

    def refused(self, credential: str, now: float = NOW) -> bool:
        try:
            self.who(credential, now)
        except Unauthenticated:
            return True
        return False

    def jwt(self, **claims: Any) -> str:
        return self.issuer.token(**{"exp": int(NOW) + 60, "iat": int(NOW), **claims})

    def minted(self, principal: Principal, lifetime_s: float = 60) -> str:
        return mint(self.signer, principal, now=NOW, lifetime_s=lifetime_s, token_id="t")


@pytest.fixture
def door() -> Door:
    return Door()


def test_every_kind_of_credential_is_known_by_its_form(door: Door) -> None:
    door.model.apply(KEY)
    door.model.apply(CLIENT)
    door.issuer_keys.replace(door.issuer.jwks)
    assert door.who(SECRET).kind == "key"
    assert door.who(BOOT).kind == "bootstrap"
    assert door.who(door.minted(admin_of("acme"))) == admin_of("acme")
    assert door.who(door.jwt(scopes=["list_functions"])) == Principal(
        "acme", "client-1", frozenset({"list_functions"}), EVERYTHING, "jwt"
    )


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer nvapi-x",
        b"Bearer a.b.c",
        b"Bearer nvboot-x",
        b"Basic !!",
        b"Basic",
        b"Digest x",
        b"Basic " + b64encode(b"nvapi"),
        b"Basic " + b64encode(b"x:\xff\xfe"),
    ],
)
def test_nothing_and_nonsense_are_refused(door: Door, authorization: bytes | None) -> None:
    with pytest.raises(Unauthenticated):
        door.authenticator.authenticate(authorization, NOW)


def test_a_url_with_a_credential_in_it_works_too(door: Door) -> None:
    door.model.apply(KEY)
    value = b"basic " + b64encode(f"any:{SECRET}".encode())
    assert door.authenticator.authenticate(value, NOW).account == "acme"


def test_a_signed_token_ends_when_it_says_also_when_it_was_believed(door: Door) -> None:
    token = door.minted(admin_of("acme"), lifetime_s=60)
    door.who(token, NOW + 59)
    assert door.refused(token, NOW + 60)
    assert door.refused(token, NOW + 61)


def test_a_jwt_that_is_not_good_yet_is_refused_until_it_is(door: Door) -> None:
    door.model.apply(CLIENT)
    door.issuer_keys.replace(door.issuer.jwks)
    token = door.jwt(nbf=int(NOW) + 10)
    assert door.refused(token)
    door.who(token, NOW + 10)


def test_what_was_made_with_a_key_ends_with_it(door: Door) -> None:
    door.model.apply(replace(KEY, expires_at=int(NOW) + 30))
    token = door.minted(invoker_of(door.who(SECRET), "browser", ResourceScope()))
    assert door.who(token).subject == "browser"
    assert door.refused(token, NOW + 30)
    door.model.apply(KEY)
    door.who(token)
    door.model.apply(replace(KEY, is_revoked=True))
    assert door.refused(token)
    door.model.apply(KEY)
    door.model.apply(Removed(ApiKeyKey("id")))
    assert door.refused(token)


def test_a_client_acts_for_the_account_that_it_has_now(door: Door) -> None:
    door.issuer_keys.replace(door.issuer.jwks)
    token = door.jwt()
    with pytest.raises(NotFound):
        door.who(token)
    door.model.apply(CLIENT)
    assert door.who(token).account == "acme"
    door.model.apply(Client("client-1", "other"))
    assert door.who(token).account == "other"
    door.model.apply(Removed(ClientKey("client-1")))
    with pytest.raises(NotFound):
        door.who(token)


def test_a_token_is_believed_no_longer_than_its_key(door: Door) -> None:
    door.model.apply(CLIENT)
    door.issuer_keys.replace(door.issuer.jwks)
    token = door.jwt()
    door.who(token)
    door.issuer.rotate()
    door.issuer_keys.replace(door.issuer.jwks)
    assert door.refused(token)

    other = TokenSigner(bytes(range(32)))
    name, data = f"signing.{other.kid}", orjson.dumps(other.document(""))
    door.signers.apply(name, data)
    ours = mint(other, admin_of("acme"), now=NOW, lifetime_s=60, token_id="t")
    door.who(ours)
    door.signers.apply(name, None)
    assert door.refused(ours)


def test_an_issuer_cannot_speak_for_the_gateway_nor_anybody_for_the_issuer(
    door: Door,
) -> None:
    door.issuer_keys.replace(door.issuer.jwks)
    door.model.apply(CLIENT)
    assert door.refused(door.jwt(iss="urn:nvcf:gateway", aud="urn:nvcf:gateway:admin"))
    assert door.refused(TokenIssuer().token(exp=int(NOW) + 60, iat=int(NOW)))
    assert door.refused(door.jwt(iss="https://else.where"))


def test_without_the_issuers_keys_its_callers_are_told_to_come_again(door: Door) -> None:
    with pytest.raises(IssuerUnavailable):
        door.who(door.jwt())
    alone = Authenticator(door.model, door.signers, door.bootstrap)
    with pytest.raises(Unauthenticated):
        alone.authenticate(b"Bearer " + door.jwt().encode(), NOW)


def test_a_signature_is_checked_once(door: Door) -> None:
    """The invocation path must not pay for elliptic curves each time."""
    token = door.minted(admin_of("acme"))
    assert door.who(token) == door.who(token)
    assert door.signers.verifications == 1


def test_many_tokens_are_not_remembered_for_ever(door: Door) -> None:
    for subject in range(5000):
        principal = invoker_of(admin_of("acme"), str(subject), ResourceScope())
        door.who(door.minted(principal))
    assert door.authenticator.remembered <= 4096


def test_a_deleted_account_takes_its_tokens_and_the_jwts_of_its_clients_along(door: Door) -> None:
    door.model.apply(CLIENT)
    door.issuer_keys.replace(door.issuer.jwks)
    admin = admin_of("acme")
    tokens = [door.minted(admin), door.minted(invoker_of(admin, "browser", ResourceScope()))]
    jwt = door.jwt()
    for token in (*tokens, jwt):
        door.who(token)
    door.model.apply(Removed(AccountKey("acme")))
    assert all(door.refused(token) for token in tokens)
    with pytest.raises(NotFound):
        door.who(jwt)
    door.model.apply(ACME)
    for token in (*tokens, jwt):
        door.who(token)


def test_what_rests_on_a_key_or_an_instance_needs_no_record_of_its_account(door: Door) -> None:
    door.model.apply(replace(KEY, account="unrecorded"))
    browser = door.who(door.minted(invoker_of(door.who(SECRET), "browser", ResourceScope())))
    worker = door.who(door.minted(worker_principal(WorkerIdentity("unrecorded", "f", "v", "i"))))
    assert door.model.account("unrecorded") is None
    assert (browser.account, browser.subject) == ("unrecorded", "browser")
    assert (worker.account, worker.kind) == ("unrecorded", "worker")
