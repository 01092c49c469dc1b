"""The documents of the auth callout; what a server makes of them is tested beside one."""

import base64
import json
from typing import Any

import pytest

from queueing.nats.accounts.callout_documents import (
    CalloutAccount,
    CalloutRequest,
    read_callout,
    worker_token,
)
from queueing.nats.accounts.jwt import Role, Signer

OPERATOR = Signer.of(Role.OPERATOR, bytes(32))


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def request(**members: object) -> bytes:
    claims = {
        "server_id": {"id": "NSERVER"},
        "user_nkey": "UKEY",
        "client_info": {"host": "10.0.0.1"},
        "connect_opts": {"auth_token": "token", "name": "worker_v_i"},
        **members,
    }
    return f"head.{encoded({'nats': claims}).rstrip('=')}.signature".encode()


def test_a_servers_request_says_who_wants_to_log_in() -> None:
    found = CalloutRequest("NSERVER", "UKEY", "token", "worker_v_i", "10.0.0.1")
    assert read_callout(request()) == found
    assert read_callout(request(connect_opts={})).token == ""


@pytest.mark.parametrize(
    "payload",
    [b"", b"a.b", b"a.!!!.c", b"a.e30.c", request(user_nkey=7), request(connect_opts=None)],
)
def test_what_is_no_request_of_a_server_is_recognized(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no authorization request"):
        read_callout(payload)


@pytest.mark.parametrize("padding", ["", "="])
def test_a_workers_login_contains_its_token(padding: str) -> None:
    login = {"account": "Worker", "pluginName": "webhook", "payload": "the token!"}
    assert worker_token(encoded(login).rstrip("=") + padding) == "the token!"


@pytest.mark.parametrize(
    "login",
    [{"pluginName": "other", "payload": "x"}, {"pluginName": "webhook"}, ["webhook"], "webhook"],
)
def test_another_login_is_not_a_workers(login: Any) -> None:
    with pytest.raises(ValueError, match="not the login of a worker"):
        worker_token(encoded(login))


def test_all_processes_make_the_same_account_and_login() -> None:
    one, two = CalloutAccount(OPERATOR.seed), CalloutAccount(OPERATOR.seed)
    assert one.document() == two.document()
    assert one.login() == two.login()
    assert one.server_config() == two.server_config()
