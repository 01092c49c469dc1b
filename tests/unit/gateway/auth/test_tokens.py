import pytest

from gateway.auth.signing import TokenSigner, VerificationKeys, read_unverified
from gateway.auth.tokens import (
    WorkerIdentity,
    admin_of,
    invoker_of,
    mint,
    read_token,
    worker_of,
    worker_principal,
)
from gateway.domain.model import EVERYTHING, Reach
from gateway.domain.principal import Principal
from gateway.errors import Unauthenticated

SIGNER = TokenSigner(bytes(32))
NOW = 1_800_000_000.0
F = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
V = "11111111-2222-4333-8444-555555555555"
CALLER = Principal("acme", "me", frozenset({"invoke_function"}), EVERYTHING, "key", bytes(32))
WORKER = WorkerIdentity("acme", F, V, "instance 1")


@pytest.mark.parametrize(
    "principal",
    [
        admin_of("acme"),
        invoker_of(CALLER, "browser", Reach(functions=frozenset({F}))),
        invoker_of(CALLER, "browser", Reach(versions=frozenset({f"{F}/{V}"}))),
        worker_principal(WORKER),
    ],
)
def test_a_token_says_who_has_it(principal: Principal) -> None:
    token = mint(SIGNER, principal, now=NOW, lifetime_s=60, token_id="1")
    header, members = read_unverified(token)
    found, claims = read_token(VerificationKeys(SIGNER), token, header["kid"])
    assert found == principal
    assert claims.expires_at == NOW + 60
    assert members["jti"] == "1"


def test_only_what_the_gateway_issues_is_minted() -> None:
    for kind in ("key", "jwt", "bootstrap"):
        with pytest.raises(ValueError, match=kind):
            mint(SIGNER, CALLER._replace(kind=kind), now=NOW, lifetime_s=60, token_id="1")


def test_a_workers_token_names_one_instance_and_nobody_else_is_a_worker() -> None:
    assert worker_of(worker_principal(WORKER)) == WORKER
    for other in (admin_of("acme"), CALLER):
        with pytest.raises(Unauthenticated):
            worker_of(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "urn:nvcf:gateway:else"},
        {"aud": ["urn:nvcf:gateway:admin", "urn:nvcf:gateway:token"]},
        {"nca_id": None},
        {"scopes": None},
        {"resources": ["all"]},
        {"key": "no hex"},
    ],
)
def test_a_signed_token_of_another_form_is_refused(changed: dict[str, object]) -> None:
    claims: dict[str, object] = {
        "aud": "urn:nvcf:gateway:token",
        "sub": "s",
        "nca_id": "acme",
        "scopes": [],
        "resources": [],
        "exp": int(NOW),
    }
    read_token(VerificationKeys(SIGNER), SIGNER.sign(claims), SIGNER.kid)
    with pytest.raises(Unauthenticated):
        read_token(VerificationKeys(SIGNER), SIGNER.sign({**claims, **changed}), SIGNER.kid)
