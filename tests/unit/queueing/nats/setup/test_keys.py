"""What the keys of an installation sign, before, during and after a rotation."""

import json
import os
from typing import Any

import pytest

from queueing.nats.accounts.jwt import Signer, account_of, read_claims
from queueing.nats.setup.keys import (
    InstallationKeys,
    RotatedKey,
    SetupKeysError,
    make_keys,
    subject_of,
)

NOW = 1_800_000_000


@pytest.fixture
def keys() -> InstallationKeys:
    return make_keys(os.urandom, NOW)


def trusted(keys: InstallationKeys) -> set[str]:
    """Return the public keys that servers accept accounts from."""
    found = set()
    for document in keys.operator_documents():
        claims = read_claims(document)
        found |= {claims["sub"], *claims["nats"]["signing_keys"]}
    return found


def account(keys: InstallationKeys) -> dict[str, Any]:
    return read_claims(keys.account_documents()[keys.account_id])


def is_let_in(keys: InstallationKeys, jwt: str) -> bool:
    """Whether servers accept a user of the gateway's account."""
    content, user = account(keys), read_claims(jwt)
    revoked = content["nats"].get("revocations", {}).get(user["sub"], 0)
    return user["iss"] in content["nats"]["signing_keys"] and user["iat"] > revoked


def test_the_identity_keys_sign_nothing_that_gateways_or_servers_hold(
    keys: InstallationKeys,
) -> None:
    assert account(keys)["iss"] == Signer(keys.operator_signing).public
    assert account_of(keys.gateway_jwt) == keys.account_id
    assert read_claims(keys.gateway_jwt)["iss"] == Signer(keys.account_signing).public
    assert is_let_in(keys, keys.gateway_jwt)


def test_what_is_written_is_read_again(keys: InstallationKeys) -> None:
    assert InstallationKeys.read(keys.text()) == keys
    assert keys.operator not in repr(keys)
    for text in ("", "[]", '{"format": 1}', '{"format": 2}'):
        with pytest.raises(SetupKeysError):
            InstallationKeys.read(text)


@pytest.mark.parametrize("key", [RotatedKey.GATEWAY_USER, RotatedKey.ACCOUNT_SIGNING])
def test_a_login_and_the_next_one_are_let_in_until_the_rotation_is_finished(
    keys: InstallationKeys, key: RotatedKey
) -> None:
    during = keys.rotate(key, os.urandom, NOW)
    is_changed = key is RotatedKey.ACCOUNT_SIGNING
    assert (account(during)["iat"] > account(keys)["iat"]) is is_changed
    assert is_let_in(during, keys.gateway_jwt)
    assert is_let_in(during, during.gateway_jwt)
    after = during.retire(key, NOW)
    assert not is_let_in(after, keys.gateway_jwt)
    assert is_let_in(after, during.gateway_jwt)
    assert (key is RotatedKey.ACCOUNT_SIGNING) == (after.account_signing != keys.account_signing)


def test_the_next_login_of_a_key_rotated_twice_in_a_second_is_let_in(
    keys: InstallationKeys,
) -> None:
    for _ in range(2):
        keys = keys.rotate(RotatedKey.GATEWAY_USER, os.urandom, NOW)
        keys = keys.retire(RotatedKey.GATEWAY_USER, NOW)
    assert is_let_in(keys, keys.gateway_jwt)


def test_the_old_system_user_ends(keys: InstallationKeys) -> None:
    during = keys.rotate(RotatedKey.SYSTEM_USER, os.urandom, NOW)
    after = during.retire(RotatedKey.SYSTEM_USER, NOW)
    document = read_claims(after.account_documents()[keys.system_id])
    assert set(document["nats"]["revocations"]) == {subject_of(keys.system_jwt)}
    assert is_let_in(after, keys.gateway_jwt)


@pytest.mark.parametrize("key", [RotatedKey.OPERATOR, RotatedKey.OPERATOR_SIGNING])
def test_servers_trust_both_operator_keys_and_accounts_are_signed_by_one_that_all_know(
    keys: InstallationKeys, key: RotatedKey
) -> None:
    during = keys.rotate(key, os.urandom, NOW)
    assert trusted(during) > trusted(keys)
    assert account(during)["iss"] in trusted(keys)
    assert Signer(during.operator_signing).public in trusted(during)
    after = during.retire(key, NOW)
    # Pushed while servers trust both, and all that those trust who are restarted then.
    assert account(after)["iss"] in trusted(during) & trusted(after)
    assert Signer(keys.operator_signing).public not in trusted(after)
    assert (Signer(keys.operator).public in trusted(after)) == (key is RotatedKey.OPERATOR_SIGNING)


def test_one_rotation_at_a_time(keys: InstallationKeys) -> None:
    with pytest.raises(SetupKeysError, match="has not begun"):
        keys.retire(RotatedKey.OPERATOR, NOW)
    during = keys.rotate(RotatedKey.OPERATOR, os.urandom, NOW)
    for key, reason in (
        (RotatedKey.OPERATOR, "has begun already"),
        (RotatedKey.GATEWAY_USER, "before the rotation of operator is finished"),
    ):
        with pytest.raises(SetupKeysError, match=reason):
            during.rotate(key, os.urandom, NOW)
    with pytest.raises(SetupKeysError, match="operator-signing has not begun"):
        during.retire(RotatedKey.OPERATOR_SIGNING, NOW)


def test_a_rotation_changes_no_document_that_it_need_not(keys: InstallationKeys) -> None:
    def changed(before: InstallationKeys, after: InstallationKeys) -> set[str]:
        documents = after.account_documents()
        ids = {name for name, text in before.account_documents().items() if documents[name] != text}
        return {"account" if one == keys.account_id else "system" for one in ids}

    for key, begun, ended in (
        (RotatedKey.GATEWAY_USER, set(), {"account"}),
        (RotatedKey.ACCOUNT_SIGNING, {"account"}, {"account"}),
        (RotatedKey.SYSTEM_USER, set(), {"system"}),
        (RotatedKey.OPERATOR_SIGNING, set(), {"account", "system"}),
        (RotatedKey.OPERATOR, set(), {"account", "system"}),
    ):
        during = keys.rotate(key, os.urandom, NOW)
        assert changed(keys, during) == begun, key
        assert changed(during, during.retire(key, NOW)) == ended, key


def test_keys_of_an_earlier_release_are_read(keys: InstallationKeys) -> None:
    stored = json.loads(keys.text())
    del stored["account_at"], stored["system_at"]
    assert InstallationKeys.read(json.dumps(stored)) == keys
