"""Accounts and users are what the text says; what a server makes of them is tested beside one."""

import base64
import json
from typing import Any

import nkeys
import pytest

from queueing.nats.accounts.callout_documents import CalloutAccount
from queueing.nats.accounts.jwt import Role, Signer, UserCredentials, account_of
from queueing.nats.accounts.nvcf_users import NvcfUsers
from queueing.nats.accounts.users import WorkerUsers, gateway_user
from wire.subjects import worker_inbox

VERSION, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
STREAM = f"rq_local_{VERSION}.rq_local_{VERSION}_workers"
OPERATOR = Signer.of(Role.OPERATOR, bytes(32))
GATEWAY = Signer.of(Role.ACCOUNT, bytes(range(32)))


def users(operator: Signer = OPERATOR, region: str = "local") -> WorkerUsers:
    return WorkerUsers(operator.seed, GATEWAY.public, [region])


def claims_of(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


def is_signed_by(jwt: str, signer: Signer) -> bool:
    text, _, signature = jwt.rpartition(".")
    key = nkeys.from_seed(signer.seed.encode())
    verified: bool = key.verify(text.encode(), base64.urlsafe_b64decode(signature + "=="))
    return verified


def worker(instance_id: str = "i1") -> UserCredentials:
    return users().worker(VERSION, instance_id, bytes(32), now=100, expires_at=200)


def test_a_worker_may_use_the_subjects_of_its_own_version_and_no_wildcard_above_them() -> None:
    nats = claims_of(worker().jwt)["nats"]
    assert nats["pub"] == {
        "allow": [
            f"nvcf.js.CONSUMER.MSG.NEXT.{STREAM}",
            f"nvcf.js.CONSUMER.INFO.{STREAM}",
            f"$JS.ACK.{STREAM}.>",
            f"nvcf.polled.{VERSION}.>",
        ]
    }
    assert nats["sub"] == {
        "allow": [f"nvcf.cancel.{VERSION}", f"nvcf.polling.{VERSION}.*", f"_INBOX.{VERSION}.i1.>"]
    }
    assert nats["allowed_connection_types"] == ["STANDARD"]


def test_a_workers_login_ends_when_it_is_told_to() -> None:
    claims = claims_of(worker().jwt)
    assert (claims["iat"], claims["exp"]) == (100, 200)


def test_the_account_of_a_version_imports_what_its_users_may_and_nothing_else() -> None:
    claims = claims_of(users().account(VERSION, "d1"))
    imports = {one["local_subject"]: one for one in claims["nats"]["imports"]}
    assert {local: one["subject"] for local, one in imports.items()} == {
        f"nvcf.js.CONSUMER.MSG.NEXT.{STREAM}": f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}",
        f"nvcf.js.CONSUMER.INFO.{STREAM}": f"$JS.API.CONSUMER.INFO.{STREAM}",
        f"$JS.ACK.{STREAM}.>": f"$JS.ACK.{STREAM}.>",
        f"nvcf.cancel.{VERSION}": f"nvcf.cancel.{VERSION}",
        f"nvcf.polling.{VERSION}.*": f"nvcf.polling.{VERSION}.*",
        f"nvcf.polled.{VERSION}.>": f"nvcf.polled.{VERSION}.>",
    }
    assert {one["account"] for one in imports.values()} == {GATEWAY.public}
    assert "exports" not in claims["nats"]


def test_every_process_makes_the_same_account_and_every_version_has_its_own() -> None:
    assert users().account(VERSION, "d1") == users().account(VERSION, "d1")
    assert users().account(VERSION, "d1") != users().account(VERSION, "d2")
    keys = {
        claims_of(one.account(version, "d1"))["sub"]
        for one in (users(), users(Signer.of(Role.OPERATOR, bytes([1] * 32))))
        for version in (VERSION, OTHER)
    }
    assert len(keys) == 4


def test_documents_are_signed_along_the_chain() -> None:
    account = users().account(VERSION, "d1")
    assert is_signed_by(account, OPERATOR)
    assert account_of(worker().jwt) == claims_of(account)["sub"]
    gateway = gateway_user(GATEWAY, bytes(32), now=1)
    assert is_signed_by(gateway.jwt, GATEWAY)
    assert account_of(gateway.jwt) == GATEWAY.public


@pytest.mark.parametrize("instance_id", ["", "a.b", "a b", "*", ">", "x" * 65, "\N{SNOWMAN}"])
def test_no_name_of_an_instance_widens_its_inbox(instance_id: str) -> None:
    inbox = worker_inbox(VERSION, instance_id)
    prefix, _, token = inbox.rpartition(".")
    assert prefix == f"_INBOX.{VERSION}"
    assert token.startswith("=")
    assert token.removeprefix("=").isalnum()
    assert inbox != worker_inbox(VERSION, f"{instance_id}!")


def test_seeds_are_not_shown() -> None:
    assert worker().seed not in repr(worker())


@pytest.mark.parametrize("seed", ["", "no seed", GATEWAY.seed, OPERATOR.seed[:-1]])
def test_only_an_operators_seed_makes_accounts(seed: str) -> None:
    for kind in (WorkerUsers, NvcfUsers):
        with pytest.raises(ValueError, match="seed"):
            kind(seed, GATEWAY.public, ["local"])
    with pytest.raises(ValueError, match="seed"):
        CalloutAccount(seed)
