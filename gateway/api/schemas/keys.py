"""API keys (`docs/wire.md` §15.4). Members are snake_case, as in NVCF's key service."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.api.schemas.fields import NcaId, items
from runtime.text_rules import text_rule

ShortTexts = Annotated[list[Annotated[str, Field(max_length=128)]], items(64)]


class SnakeBody(BaseModel):
    """A request body, or a part of one. Errors do not show rejected values."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


class SnakeView(BaseModel):
    """A response body, or a part of one. Members that are `None` are left out."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class KeyResource(SnakeBody):
    """Functions that a key is valid for."""

    type: Annotated[str, Field(max_length=64)]
    """account-functions, authorized-functions or function."""
    id: Annotated[str, Field(max_length=128)]
    """``*`` for all; for type function FUNCTION_ID/* or FUNCTION_ID/VERSION_ID."""


class KeyPolicy(SnakeBody):
    """What a key permits at one service. Policies for other services have no effect here."""

    aud: Annotated[str, Field(max_length=128)] | None = None
    auds: ShortTexts | None = None
    product: Annotated[str, Field(max_length=128)] | None = None
    scopes: ShortTexts = Field(default_factory=list)
    resources: Annotated[list[KeyResource], items(256)] = Field(default_factory=list)
    """The functions; none when absent."""

    @property
    def audiences(self) -> list[str]:
        return [*(self.auds or ()), *((self.aud,) if self.aud else ())]


class Authorizations(SnakeBody):
    """Everything that a key permits."""

    policies: Annotated[list[KeyPolicy], items(16)]


class ReplaceAuthorizations(Authorizations):
    """Everything that the key permits from now on."""

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        """Accept also ``{"authorizations": {"policies": …}}``, the form for creating a key."""
        if isinstance(value, dict) and "policies" not in value:
            return value.get("authorizations", value)
        return value


class CreateKey(SnakeBody):
    """A new key."""

    description: (
        Annotated[
            str,
            text_rule(
                r"^[A-Za-z0-9\s_-]{1,64}$", "consist of 1 to 64 letters, digits, spaces, - and _"
            ),
        ]
        | None
    ) = None
    expires_at: AwareDatetime | None = None
    """At most a year from now, which is also the default."""
    authorizations: Authorizations
    audience_service_ids: ShortTexts | None = None


class IntrospectKey(SnakeBody):
    """The value of a key."""

    key: Annotated[SecretStr, Field(max_length=512)]
    audience_service_id: Annotated[str, Field(max_length=128)] | None = None


class CreateAdminToken(SnakeBody):
    """The account that the token is for."""

    nca_id: NcaId | None = None
    """When absent, the default account. Created if it does not exist.

    A token of the default account can also create, update and delete other accounts
    (admin:account_setup); a token of another account is limited to that account.
    """


class ResourceView(SnakeView):
    """Functions that a key is valid for."""

    type: str
    id: str


class PolicyView(SnakeView):
    """What a key permits at one service."""

    aud: str
    auds: list[str]
    product: str
    scopes: list[str]
    resources: list[ResourceView]


class AuthorizationsView(SnakeView):
    """Everything that a key permits."""

    policies: list[PolicyView]


class KeyView(SnakeView):
    """A key, without its value."""

    id: str
    nca_id: str
    """The account of the key."""
    status: str
    """active or expired. A revoked key is not found."""
    owner_type: str
    owner_id: str
    """The subject of calls with the key, as sent to functions."""
    issuer_service_id: str
    audience_service_ids: list[str]
    description: str
    created_at: str
    expires_at: str | None = None
    authorizations: AuthorizationsView


class CreatedKey(KeyView):
    """A new key. Its value is not returned again."""

    value: str


class KeysResponse(SnakeView):
    """The keys of an account, oldest first."""

    nca_id: str
    """The account of the credential."""
    keys: list[KeyView]


class Introspection(SnakeView):
    """A valid key."""

    key_id: str
    owner_type: str
    owner_id: str
    issuer_service_id: str
    authorizations: AuthorizationsView


class AdminToken(SnakeView):
    """A token for everything in one account; for the default account, also to set up others."""

    id: str
    value: str
    status: str
    description: str
    nca_id: str
    created_at: str
    expires_at: str
