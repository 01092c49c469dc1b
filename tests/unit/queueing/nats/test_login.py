from pathlib import Path

import pytest

from queueing.nats.login import Login, LoginError, parse_server, read_credentials
from queueing.servers import Server

CREDENTIALS = """
-----BEGIN NATS USER JWT-----
eyJ0eXAi.eyJqdGki.c2ln
------END NATS USER JWT------

************************* IMPORTANT *************************

-----BEGIN USER NKEY SEED-----
SUAIBDPBAUTW
------END USER NKEY SEED------
"""


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("nats://broker", Server("broker", 4222)),
        ("broker:5000", Server("broker", 5000)),
        ("tls://me:pa%40ss@broker", Server("broker", 4222, True, "me", "pa@ss")),
        ("nats://secret@[::1]:1", Server("::1", 1, False, "secret")),
    ],
)
def test_addresses_are_read(url: str, server: Server) -> None:
    assert parse_server(url) == server


@pytest.mark.parametrize("url", ["", "http://broker", "nats://", "broker:notaport"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(LoginError):
        parse_server(url)


def test_a_token_is_asked_for_at_every_connect() -> None:
    tokens = iter(["first", "second"])
    login = Login(token=lambda: next(tokens))
    server = Server("broker", 4222)
    assert login.fields(server, "") == {"auth_token": "first"}
    assert login.fields(server, "") == {"auth_token": "second"}


def test_the_address_may_carry_the_login() -> None:
    assert Login().fields(Server("b", 1, False, "me", "secret"), "") == {
        "user": "me",
        "pass": "secret",
    }
    assert Login().fields(Server("b", 1, False, "secret"), "") == {"auth_token": "secret"}
    assert Login().fields(Server("b", 1), "") == {}


def test_a_credentials_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "user.creds"
    path.write_text(CREDENTIALS)
    assert read_credentials(path) == ("eyJ0eXAi.eyJqdGki.c2ln", "SUAIBDPBAUTW")


def test_a_credentials_file_without_a_seed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "user.creds"
    path.write_text(CREDENTIALS.partition("*")[0])
    with pytest.raises(LoginError, match="SEED"):
        read_credentials(path)
    with pytest.raises(LoginError):
        read_credentials(tmp_path / "missing")


def test_secrets_are_not_shown() -> None:
    shown = repr(Login(token="s3cret", password="s3cret", nkey_seed="s3cret"))
    assert "s3cret" not in shown
