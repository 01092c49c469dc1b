"""Which login is for which image."""

import json
from base64 import b64encode

import pytest

from gateway.domain.documents import Document
from gateway.domain.registry_credential import (
    RegistryCredential,
    canonical_host,
    check_login,
    docker_logins,
    registry_of,
)
from gateway.errors import BadRequest


def login(text: str) -> str:
    return b64encode(text.encode()).decode()


def credential(hostname: str) -> RegistryCredential:
    credential_id = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
    value = login(f"user:{hostname}")
    return RegistryCredential(credential_id, "mine", hostname, (), "", "", "", value)


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("demo", "docker.io"),
        ("acme/demo:1", "docker.io"),
        ("index.docker.io/acme/demo", "docker.io"),
        ("nvcr.io/nvidia/tritonserver:24.01-py3", "nvcr.io"),
        ("localhost/demo", "localhost"),
        ("registry:5000/demo@sha256:abc", "registry:5000"),
        ("GHCR.io/Acme/demo", "ghcr.io"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def test_an_image_gets_the_login_of_its_registry_and_no_other() -> None:
    known = [credential("nvcr.io"), credential(canonical_host("Docker.io"))]
    assert json.loads(docker_logins(known, "nvcr.io/a/b")) == {
        "auths": {"nvcr.io": {"auth": login("user:nvcr.io")}}
    }
    # Docker's own name of its hub.
    assert json.loads(docker_logins(known, "acme/demo")) == {
        "auths": {"https://index.docker.io/v1/": {"auth": login("user:docker.io")}}
    }
    assert docker_logins(known, "ghcr.io/acme/demo") == ""


@pytest.mark.parametrize(
    "value", ["", "!!", login("nocolon"), login("user:"), login(":password"), login("a:b\nc")]
)
def test_a_login_has_a_user_and_a_password(value: str) -> None:
    check_login(login("$oauthtoken:nvapi-x:y"))
    with pytest.raises(BadRequest, match="user:password in base64"):
        check_login(value)


def test_a_credential_is_read_back_and_does_not_show_its_login() -> None:
    stored = credential("nvcr.io")
    assert RegistryCredential.read(Document(stored.document())) == stored
    assert stored.login not in repr(stored)
