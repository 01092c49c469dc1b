"""Tokens with which external workers register (`docs/wire.md` §19.1)."""

from typing import Annotated

from pydantic import Field

from gateway.api.schemas.fields import WHOLE, Body, View

DEFAULT_LIFETIME_S = 30 * 86_400
MAX_LIFETIME_S = 366 * 86_400


class CreateRegistrationToken(Body):
    """How long the token is valid."""

    expires_in_seconds: Annotated[int, Field(ge=1, le=MAX_LIFETIME_S), WHOLE] = DEFAULT_LIFETIME_S
    """Default: 30 days. Workers that have registered go on after that."""


class RegistrationTokenView(View):
    """A registration token, without its value."""

    token_id: str
    nca_id: str
    function_id: str
    function_version_id: str
    created_at: str
    expires_at: str


class CreatedRegistrationToken(RegistrationTokenView):
    """A new registration token; the value is shown only here."""

    token: str = Field(repr=False)


class RegistrationTokensResponse(View):
    """Tokens that are valid, oldest first."""

    registration_tokens: list[RegistrationTokenView]
