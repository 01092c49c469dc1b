from gateway.api.admin_routes import ACCOUNT_PATH, with_admin_routes
from gateway.api.app import ROUTES
from gateway.api.docs_page import page
from gateway.api.openapi import document

SERVED = with_admin_routes(ROUTES)
ADMIN_ROUTES = {
    (one.method, one.path.removeprefix(ACCOUNT_PATH)): one for one in SERVED if one.is_admin
}

F, V = "functions/{functionId}", "versions/{functionVersionId}"
SPECIFIED = """
POST   /functions                                   register_function
POST   /F/versions                                  register_function
GET    /functions                                   list_functions list_functions_details
GET    /functions/ids                               list_functions list_functions_details
GET    /F/versions                                  list_functions list_functions_details
GET    /F/V                                         list_functions list_functions_details
PUT    /F/V                                         update_function
DELETE /F/V                                         delete_function
PUT    /metadata/F/V                                update_function
PUT    /ratelimit/F/V                               update_function
DELETE /ratelimit/F/V                               update_function
POST   /deployments/F/V                             deploy_function
GET    /deployments/F/V                             deploy_function
PUT    /deployments/F/V                             deploy_function
DELETE /deployments/F/V                             deploy_function
GET    /deployments                                 deploy_function
GET    /deployments/{deploymentId}                  deploy_function
PATCH  /deployments/{deploymentId}/gpu-specifications/{gpuSpecificationId} deploy_function
POST   /registrationTokens/F/V                      deploy_function
GET    /registrationTokens                          deploy_function
DELETE /registrationTokens/{tokenId}                deploy_function
GET    /queues/F                                    queue_details
GET    /queues/F/V                                  queue_details
GET    /queues/{requestId}/position                 queue_details
POST   /authorizations/F                            authorize_clients
GET    /authorizations/F                            authorize_clients
DELETE /authorizations/F                            authorize_clients
PATCH  /authorizations/F/add                        authorize_clients
PATCH  /authorizations/F/remove                     authorize_clients
POST   /authorizations/F/V                          authorize_clients
GET    /authorizations/F/V                          authorize_clients
DELETE /authorizations/F/V                          authorize_clients
PATCH  /authorizations/F/V/add                      authorize_clients
PATCH  /authorizations/F/V/remove                   authorize_clients
PUT    /secrets/F/V                                 update_secrets
GET    /supportedGpus                               register_function deploy_function list_functions
GET    /clusterGroups                               list_cluster_groups
POST   /assets                                      invoke_function
GET    /assets                                      invoke_function
GET    /assets/{assetId}                            invoke_function
DELETE /assets/{assetId}                            invoke_function
GET    /assets/{assetId}/content-redirect           invoke_function
POST   /telemetries                                 manage_telemetries
GET    /telemetries                                 manage_telemetries
GET    /telemetries/{telemetryId}                   manage_telemetries
DELETE /telemetries/{telemetryId}                   manage_telemetries
PUT    /secrets/telemetries/{telemetryId}           update_secrets
POST   /registry-credentials                        manage_registry_credentials
GET    /registry-credentials                        manage_registry_credentials
GET    /registry-credentials/{registryCredentialId} manage_registry_credentials
PATCH  /registry-credentials/{registryCredentialId} manage_registry_credentials
DELETE /registry-credentials/{registryCredentialId} manage_registry_credentials
GET    /recognized-registries                       manage_registry_credentials
"""
"""The rows of `docs/wire.md` §9.5 that have an admin route and are served here."""


def test_every_route_of_an_account_has_an_admin_route_and_no_other_route_has() -> None:
    wanted = {}
    for row in SPECIFIED.strip().splitlines():
        method, path, *scopes = row.split()
        whole = path.replace("/F", f"/{F}").replace("/V", f"/{V}")
        wanted[method, whole] = {f"admin:{scope}" for scope in scopes}
    assert {where: set(admin_route.scopes) for where, admin_route in ADMIN_ROUTES.items()} == wanted


def test_an_admin_route_does_what_its_route_does() -> None:
    for own in ROUTES:
        admin_route = ADMIN_ROUTES.get((own.method, own.path.removeprefix("/v2/nvcf")))
        if admin_route is not None and not own.is_admin:
            assert admin_route.handle is own.handle
            assert (admin_route.body, admin_route.query, admin_route.response) == (
                own.body,
                own.query,
                own.response,
            )


def test_no_two_routes_have_the_same_path_or_name() -> None:
    assert len({(one.method, one.path) for one in SERVED}) == len(SERVED)
    assert len({one.operation_id for one in SERVED}) == len(SERVED)


def test_the_page_has_the_admin_routes_in_one_section_folded() -> None:
    shown = page(document(SERVED))
    own, _, admin = shown.partition("<h2>admin</h2>")
    assert "/accounts/{ncaId}/functions" not in own
    assert admin.count("/accounts/{ncaId}/") == len(ADMIN_ROUTES)
    assert admin.index("<details>") < admin.index("/accounts/{ncaId}/")
    assert len(shown) < len(page(document(ROUTES))) * 1.1
