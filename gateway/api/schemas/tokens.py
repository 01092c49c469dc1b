"""Invocation tokens and the secrets of versions (`docs/wire.md` §14.4)."""

from typing import Annotated

from pydantic import Field

from gateway.api.schemas.accounts import ClientId
from gateway.api.schemas.fields import Body, Uuid, unique
from gateway.api.schemas.functions import Secret
from gateway.api.schemas.keys import SnakeView


class TokenFor(Body):
    """The client that a token is for."""

    client_id: ClientId
    """The subject of calls with the token, as sent to functions."""


class TokenFunction(Body):
    """A function, or one of its versions."""

    function_id: Uuid
    function_version_id: Uuid | None = None


class CreateToken(TokenFor):
    """The client that a token is for, and the functions."""

    functions: Annotated[list[TokenFunction], Field(min_length=1, max_length=4)]


class TokenResponse(SnakeView):
    """A token for invocations."""

    access_token: str
    expires_in: int
    """In seconds."""


class UpdateSecrets(Body):
    """Secrets to set. Secrets with other names stay."""

    secrets: Annotated[
        list[Secret],
        unique(lambda secret: secret.name, "the names of secrets"),
        Field(min_length=1, max_length=256),
    ]
