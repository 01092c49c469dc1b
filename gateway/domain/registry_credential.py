"""Registry credentials of an account: with which its images are pulled. Pure.

Only clusters of the backend ``kubernetes`` pull images; a pod there gets the credential of the
registry of its image, and no other. An account has at most one for each registry.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

import orjson

from gateway.domain.documents import Document
from gateway.errors import BadRequest, Conflict, NotFound

MAX_CREDENTIALS = 25
"""Default limit per account."""
CONTAINER = "CONTAINER"
Artifact = Literal["CONTAINER", "HELM", "MODEL", "RESOURCE"]
ARTIFACT_TYPES: tuple[str, ...] = get_args(Artifact)
DOCKER_HUB = "docker.io"
"""The registry of images whose name begins with none."""
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""Its name in the files of Docker's logins."""
_DOCKER_HUB_NAMES = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}
_MAX_LOGIN_BYTES = 16_384
_has_control = re.compile(r"[\x00-\x1f\x7f]").search


@dataclass(frozen=True, slots=True)
class RegistryCredential:
    """The login to one registry. ``login`` is user and password, as ``user:password`` in base64."""

    credential_id: str
    name: str
    hostname: str
    tags: tuple[str, ...]
    description: str
    created_at: str
    updated_at: str
    login: str = field(repr=False)

    def document(self) -> dict[str, object]:
        return {
            "id": self.credential_id,
            "name": self.name,
            "hostname": self.hostname,
            "tags": list(self.tags),
            "description": self.description,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "login": self.login,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            credential_id=document.uuid("id"),
            name=document.text("name"),
            hostname=document.text("hostname"),
            tags=document.ordered_texts("tags"),
            description=document.text("description"),
            created_at=document.text("created_at"),
            updated_at=document.text("updated_at"),
            login=document.text("login"),
        )


def registry_of(image: str) -> str:
    """Return the host, with port if given, of the registry from which ``image`` is pulled.

    As container runtimes read it: what stands before the first ``/`` is a registry if it has a dot
    or a port, or is ``localhost``.
    """
    first, slash, _ = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return DOCKER_HUB
    return canonical_host(first)


def canonical_host(hostname: str) -> str:
    """Return one spelling for all names of a registry."""
    hostname = hostname.lower()
    return DOCKER_HUB if hostname in _DOCKER_HUB_NAMES else hostname


def check_login(login: str) -> None:
    """Raise `BadRequest` unless ``login`` is ``user:password`` in base64."""
    try:
        text = b64decode(login, validate=True).decode()
    except (Base64Error, ValueError):
        text = ""
    user, _, password = text.partition(":")
    if not user or not password or len(login) > _MAX_LOGIN_BYTES or _has_control(text):
        raise BadRequest("The secret of a registry credential is user:password in base64")


def check_artifact_types(types: Iterable[str]) -> None:
    """Raise `BadRequest` for artifacts that nothing here fetches."""
    others = [one for one in types if one != CONTAINER]
    if others:
        raise BadRequest(
            f"artifactTypes: {', '.join(others)} is not supported: nothing but images (CONTAINER) "
            "is fetched"
        )


def add_credential(
    credentials: Sequence[RegistryCredential], new: RegistryCredential, limit: int
) -> tuple[RegistryCredential, ...]:
    """Return ``credentials`` with a new one. Raises `Conflict`, `BadRequest`."""
    if any(credential.hostname == new.hostname for credential in credentials):
        raise Conflict(
            "The account has a credential for this registry: change that (PATCH), or delete it"
        )
    if len(credentials) >= limit:
        raise BadRequest(
            f"The account has {len(credentials)} registry credentials; {limit} are allowed"
        )
    return (*credentials, new)


def change_credential(
    credentials: Sequence[RegistryCredential],
    credential_id: str,
    change: Callable[[RegistryCredential], RegistryCredential],
) -> tuple[RegistryCredential, ...]:
    """Return ``credentials`` with one changed. Raises `NotFound`."""
    before = find_credential(credentials, credential_id)
    changed = change(before)
    return tuple(changed if one is before else one for one in credentials)


def remove_credential(
    credentials: Sequence[RegistryCredential], credential_id: str
) -> tuple[RegistryCredential, ...]:
    """Return ``credentials`` without one. Raises `NotFound`."""
    gone = find_credential(credentials, credential_id)
    return tuple(one for one in credentials if one is not gone)


def find_credential(
    credentials: Iterable[RegistryCredential], credential_id: str
) -> RegistryCredential:
    """Return the credential with this id. Raises `NotFound`."""
    for credential in credentials:
        if credential.credential_id == credential_id:
            return credential
    raise NotFound("The account has no registry credential with this id")


def docker_logins(credentials: Iterable[RegistryCredential], image: str) -> str:
    """Return the file of Docker's logins with that for ``image``; empty if there is none."""
    wanted = registry_of(image)
    for credential in credentials:
        if credential.hostname == wanted:
            key = _DOCKER_HUB_KEY if wanted == DOCKER_HUB else wanted
            return orjson.dumps({"auths": {key: {"auth": credential.login}}}).decode()
    return ""
