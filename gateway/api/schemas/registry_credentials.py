"""Registry credentials: request bodies, query and responses (`docs/wire.md` §14.7)."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.api.schemas.fields import SPLIT, Body, MaybeText, Query, View, any_case, items
from gateway.api.schemas.functions import SecretName
from gateway.api.schemas.parts import Tags
from gateway.domain.registry_credential import ARTIFACT_TYPES, Artifact, canonical_host
from runtime.text_rules import text_rule

Hostname = Annotated[
    str,
    text_rule(
        r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$",
        "be the host of a registry, with its port if that is not 443",
        max_length=255,
    ),
    AfterValidator(canonical_host),
]
ArtifactType = Annotated[Artifact, any_case(*ARTIFACT_TYPES)]
Provisioner = Annotated[Literal["SYSTEM", "USER"], any_case("SYSTEM", "USER")]
Login = Annotated[
    str,
    text_rule(r"^[A-Za-z0-9+/]+={0,2}$", "be user:password in base64", max_length=16_384),
]


class RegistrySecret(Body):
    """The login to a registry. Its value is never returned."""

    name: SecretName
    """The name of the registry credential."""
    value: Login
    """user:password in base64."""


class AddRegistryCredential(Body):
    """The login to a registry that has none yet."""

    registry_hostname: Hostname
    secret: RegistrySecret
    artifact_types: Annotated[list[ArtifactType], items(len(ARTIFACT_TYPES), at_least=1)]
    """CONTAINER; nothing else is fetched."""
    tags: Tags | None = None
    description: MaybeText | None = None


class UpdateRegistryCredential(Body):
    """What to change."""

    secret: RegistrySecret | None = None
    artifact_type_enums: Annotated[list[ArtifactType], items(len(ARTIFACT_TYPES))] | None = None
    """Artifact types to add; CONTAINER, which it has."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.secret is None and not self.artifact_type_enums:
            raise ValueError("give secret or artifactTypeEnums")
        return self


class RegistryCredentialsQuery(Query):
    """The credentials to list; repeated or separated by commas."""

    artifact_type: Annotated[list[ArtifactType], items(16), SPLIT] = Field(default_factory=list)
    """All when absent."""
    provisioned_by: Annotated[list[Provisioner], items(16), SPLIT] = Field(default_factory=list)
    """All when absent. Every credential is a USER's."""


class RegistryCredentialView(View):
    """The login to a registry, without its secret."""

    registry_credential_id: str
    nca_id: str
    registry_credential_name: str
    registry_name: str
    """The same as registryHostname."""
    registry_hostname: str
    artifact_types: list[str]
    tags: list[str] | None = None
    description: str | None = None
    provisioned_by: str = "USER"
    last_updated_at: str
    created_at: str


class RegistryCredentialResponse(View):
    """A registry credential."""

    registry_credential: RegistryCredentialView


class RegistryCredentialsResponse(View):
    """The registry credentials of the account."""

    registry_credentials: list[RegistryCredentialView]


class RecognizedRegistry(View):
    """A registry for which the account may have a credential."""

    name: str
    hostname: str
    """A host; * stands for every one."""


class RecognizedRegistries(View):
    """Registries by artifact type."""

    recognized_registries: dict[str, list[RecognizedRegistry]]
