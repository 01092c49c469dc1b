"""Registry credentials, with which images are pulled (`docs/wire.md` §14.7).

Pods get the one for their image at their start. Secrets are never returned.
"""

from dataclasses import replace

from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.registry_credentials import (
    AddRegistryCredential,
    RecognizedRegistries,
    RecognizedRegistry,
    RegistryCredentialResponse,
    RegistryCredentialsQuery,
    RegistryCredentialsResponse,
    RegistryCredentialView,
    UpdateRegistryCredential,
)
from gateway.domain.lifecycle import timestamp
from gateway.domain.registry_credential import (
    CONTAINER,
    MAX_CREDENTIALS,
    RegistryCredential,
    add_credential,
    change_credential,
    check_artifact_types,
    check_login,
    find_credential,
    remove_credential,
)
from gateway.errors import BadRequest


async def create(api: Api, call: Call[AddRegistryCredential, None]) -> RegistryCredentialResponse:
    """Add the credential of a registry."""
    body, at = call.body, timestamp(api.clock())
    if not _pulls_images(api, call.account):
        raise BadRequest(
            "No cluster of the account pulls images: registry credentials are for clusters of the "
            'backend "kubernetes"'
        )
    check_artifact_types(body.artifact_types)
    check_login(body.secret.value)
    new = RegistryCredential(
        credential_id=api.new_id(),
        name=body.secret.name,
        hostname=body.registry_hostname,
        tags=tuple(body.tags or ()),
        description=body.description or "",
        created_at=at,
        updated_at=at,
        login=body.secret.value,
    )
    account = api.catalog.model.account(call.account)
    limit = account.max_registry_credentials if account is not None else MAX_CREDENTIALS
    await api.registry_credentials.change(
        call.account, lambda known: add_credential(known, new, limit)
    )
    return RegistryCredentialResponse(registry_credential=_view(new, call.account))


async def list_credentials(
    api: Api, call: Call[None, RegistryCredentialsQuery]
) -> RegistryCredentialsResponse:
    """List the registry credentials of the account."""
    types, provisioners = call.query.artifact_type, call.query.provisioned_by
    is_wanted = (not types or CONTAINER in types) and (not provisioners or "USER" in provisioners)
    found = await api.registry_credentials.of(call.account) if is_wanted else ()
    return RegistryCredentialsResponse(
        registry_credentials=[_view(one, call.account) for one in found]
    )


async def get(api: Api, call: Call[None, None]) -> RegistryCredentialResponse:
    """Get a registry credential."""
    known = await api.registry_credentials.of(call.account)
    found = find_credential(known, call.variable("registryCredentialId"))
    return RegistryCredentialResponse(registry_credential=_view(found, call.account))


async def update(
    api: Api, call: Call[UpdateRegistryCredential, None]
) -> RegistryCredentialResponse:
    """Set the login of a registry credential. Running instances keep the one before."""
    credential_id, body = call.variable("registryCredentialId"), call.body
    check_artifact_types(body.artifact_type_enums or ())
    if body.secret is not None:
        check_login(body.secret.value)
    at = timestamp(api.clock())

    def change(before: RegistryCredential) -> RegistryCredential:
        if body.secret is None:
            return replace(before, updated_at=at)
        return replace(before, name=body.secret.name, login=body.secret.value, updated_at=at)

    known = await api.registry_credentials.change(
        call.account, lambda known: change_credential(known, credential_id, change)
    )
    found = find_credential(known, credential_id)
    return RegistryCredentialResponse(registry_credential=_view(found, call.account))


async def delete(api: Api, call: Call[None, None]) -> None:
    """Delete a registry credential. Instances that run are not concerned."""
    credential_id = call.variable("registryCredentialId")
    await api.registry_credentials.change(
        call.account, lambda known: remove_credential(known, credential_id)
    )


async def recognized(api: Api, call: Call[None, None]) -> RecognizedRegistries:
    """List the registries for which the account may have credentials: every one, or none."""
    every = [RecognizedRegistry(name="every registry", hostname="*")]
    found = {CONTAINER: every} if _pulls_images(api, call.account) else {}
    return RecognizedRegistries(recognized_registries=found)


def _pulls_images(api: Api, account: str) -> bool:
    return any(group.backend == "kubernetes" for group in api.clusters.of(account))


def _view(credential: RegistryCredential, account: str) -> RegistryCredentialView:
    return RegistryCredentialView(
        registry_credential_id=credential.credential_id,
        nca_id=account,
        registry_credential_name=credential.name,
        registry_name=credential.hostname,
        registry_hostname=credential.hostname,
        artifact_types=[CONTAINER],
        tags=list(credential.tags) or None,
        description=credential.description or None,
        last_updated_at=credential.updated_at,
        created_at=credential.created_at,
    )


_ALL = "/v2/nvcf/registry-credentials"
_ONE = f"{_ALL}/{{registryCredentialId}}"
_TAG = "registry-credentials"
_SCOPES = ("manage_registry_credentials",)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        _ALL,
        create,
        "Add a registry credential",
        _TAG,
        _SCOPES,
        RegistryCredentialResponse,
        AddRegistryCredential,
    ),
    Route(
        "GET",
        _ALL,
        list_credentials,
        "List registry credentials",
        _TAG,
        _SCOPES,
        RegistryCredentialsResponse,
        query=RegistryCredentialsQuery,
    ),
    Route("GET", _ONE, get, "Get a registry credential", _TAG, _SCOPES, RegistryCredentialResponse),
    Route(
        "PATCH",
        _ONE,
        update,
        "Update a registry credential",
        _TAG,
        _SCOPES,
        RegistryCredentialResponse,
        UpdateRegistryCredential,
    ),
    Route("DELETE", _ONE, delete, "Delete a registry credential", _TAG, _SCOPES, status=204),
    Route(
        "GET",
        "/v2/nvcf/recognized-registries",
        recognized,
        "List registries that may have credentials",
        _TAG,
        _SCOPES,
        RecognizedRegistries,
    ),
)
