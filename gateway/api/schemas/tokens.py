"""Invocation tokens and the secrets of versions (`docs/wire.md` §14.4)."""

from typing import Annotated

from gateway.api.schemas.accounts import ClientId
from gateway.api.schemas.fields import Body, Uuid, items, unique
from gateway.api.schemas.functions import MAX_SECRETS, Secret
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

    functions: Annotated[list[TokenFunction], items(4, at_least=1)]


class TokenResponse(SnakeView):
    """A token for invocations."""

    access_token: str
    expires_in: int
    """In seconds."""


class UpdateSecrets(Body):
    """Secrets to set. Secrets with other names stay."""

    secrets: Annotated[
        list[Secret],
        items(MAX_SECRETS, at_least=1),
        unique(lambda secret: secret.name, "the names of secrets"),
    ]
