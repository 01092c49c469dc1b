"""Invocation tokens and the secrets of versions (§2)."""

from typing import Annotated

from pydantic import Field

from gateway.api.schemas.accounts import ClientId
from gateway.api.schemas.fields import Body, Uuid, unique
from gateway.api.schemas.functions import Secret
from gateway.api.schemas.keys import SnakeView


class TokenFor(Body):
    """Who is going to invoke."""

    client_id: ClientId
    """As the function is told."""


class TokenFunction(Body):
    """A function, or one version of it."""

    function_id: Uuid
    function_version_id: Uuid | None = None


class CreateToken(TokenFor):
    """Who is going to invoke what."""

    functions: Annotated[list[TokenFunction], Field(min_length=1, max_length=4)]


class TokenAnswer(SnakeView):
    """A token to invoke with."""

    access_token: str
    expires_in: int
    """Seconds."""


class UpdateSecrets(Body):
    """Secrets to set; those with other names stay as they are."""

    secrets: Annotated[
        list[Secret],
        unique(lambda secret: secret.name, "the names of secrets"),
        Field(min_length=1, max_length=256),
    ]
