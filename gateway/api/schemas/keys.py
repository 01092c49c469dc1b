"""API keys (§6.4). Members are snake_case here, as the key service's are."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.api.schemas.fields import NcaId

Words = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=64)]


class SnakeBody(BaseModel):
    """A request's body, or a part of one. Never shows what was rejected."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


class SnakeView(BaseModel):
    """An answer's body, or a part of one. Members that are `None` are left out."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class Resource(SnakeBody):
    """What a key is good for."""

    type: Annotated[str, Field(max_length=64)]
    """account-functions, authorized-functions or function."""
    id: Annotated[str, Field(max_length=128)]
    """``*`` for all; of a function FUNCTION_ID/* or FUNCTION_ID/VERSION_ID."""


class KeyPolicy(SnakeBody):
    """What a key allows at one service. Policies for other services grant nothing here."""

    aud: Annotated[str, Field(max_length=128)] | None = None
    auds: Words | None = None
    product: Annotated[str, Field(max_length=128)] | None = None
    scopes: Words = Field(default_factory=list)
    resources: Annotated[list[Resource], Field(max_length=256)] = Field(default_factory=list)
    """Which functions; none when absent."""

    @property
    def audiences(self) -> list[str]:
        return [*(self.auds or ()), *((self.aud,) if self.aud else ())]


class Authorizations(SnakeBody):
    """Everything that a key allows."""

    policies: Annotated[list[KeyPolicy], Field(max_length=16)]


class ReplaceAuthorizations(Authorizations):
    """Everything that a key allows from now on."""

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        """Take ``{"authorizations": {"policies": …}}`` too, as keys are made with."""
        if isinstance(value, dict) and "policies" not in value:
            return value.get("authorizations", value)
        return value


class CreateKey(SnakeBody):
    """A new key."""

    description: Annotated[str, Field(pattern=r"^[A-Za-z0-9\s_-]{1,64}$")] | None = None
    expires_at: AwareDatetime | None = None
    """In a year when absent, which is the latest."""
    authorizations: Authorizations
    audience_service_ids: Words | None = None


class IntrospectKey(SnakeBody):
    """A key to look at."""

    key: Annotated[SecretStr, Field(max_length=512)]
    audience_service_id: Annotated[str, Field(max_length=128)] | None = None


class CreateAdminToken(SnakeBody):
    """Whose functions the token is for."""

    nca_id: NcaId | None = None
    """The default account when absent. Made if it is not there.

    A token of the default account also makes, changes and deletes other accounts
    (admin:account_setup); one of any other account is for that account alone.
    """


class ResourceView(SnakeView):
    """What a key is good for."""

    type: str
    id: str


class PolicyView(SnakeView):
    """What a key allows at one service."""

    aud: str
    auds: list[str]
    product: str
    scopes: list[str]
    resources: list[ResourceView]


class AuthorizationsView(SnakeView):
    """Everything that a key allows."""

    policies: list[PolicyView]


class KeyView(SnakeView):
    """A key, without its value."""

    id: str
    nca_id: str
    """The account whose functions it opens."""
    status: str
    """active or expired. A revoked key is not there any more."""
    owner_type: str
    owner_id: str
    """Who calls with it, as functions are told."""
    issuer_service_id: str
    audience_service_ids: list[str]
    description: str
    created_at: str
    expires_at: str | None = None
    authorizations: AuthorizationsView


class CreatedKey(KeyView):
    """A new key. Its value is not shown again."""

    value: str


class KeysAnswer(SnakeView):
    """The keys of an account, oldest first."""

    nca_id: str
    """The account, which is the credential's."""
    keys: list[KeyView]


class Introspection(SnakeView):
    """What a valid key is."""

    key_id: str
    owner_type: str
    owner_id: str
    issuer_service_id: str
    authorizations: AuthorizationsView


class AdminToken(SnakeView):
    """A token for everything in one account; of the default one, for setting up others too."""

    id: str
    value: str
    status: str
    description: str
    nca_id: str
    created_at: str
    expires_at: str
