import os
from typing import Any

from gateway.api.admin_routes import ACCOUNT_PATH, with_twins
from gateway.api.app import ROUTES
from gateway.api.docs_page import page
from gateway.api.identity import Identity
from gateway.api.openapi import document
from gateway.app.identity import identity_routes

NOTHING: Any = None
OWN = (*ROUTES, *identity_routes(Identity(NOTHING, NOTHING, NOTHING, os.urandom)))
SERVED = with_twins(OWN)
TWINS = {(one.method, one.path.removeprefix(ACCOUNT_PATH)): one for one in SERVED if one.is_admin}

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
"""
"""The rows of `spec/control-plane.md` §1.1 and §2 that have a twin and are served here."""


def test_every_route_of_an_account_has_a_twin_and_no_other_route_has() -> None:
    wanted = {}
    for row in SPECIFIED.strip().splitlines():
        method, path, *scopes = row.split()
        whole = path.replace("/F", f"/{F}").replace("/V", f"/{V}")
        wanted[method, whole] = {f"admin:{scope}" for scope in scopes}
    assert {where: set(twin.scopes) for where, twin in TWINS.items()} == wanted


def test_a_twin_does_what_its_route_does() -> None:
    for own in OWN:
        twin = TWINS.get((own.method, own.path.removeprefix("/v2/nvcf")))
        if twin is not None and not own.is_admin:
            assert twin.handle is own.handle
            assert (twin.body, twin.query, twin.answer) == (own.body, own.query, own.answer)


def test_nobody_takes_the_path_or_the_name_of_another() -> None:
    assert len({(one.method, one.path) for one in SERVED}) == len(SERVED)
    assert len({one.operation_id for one in SERVED}) == len(SERVED)


def test_the_page_has_the_twins_in_one_place_folded() -> None:
    shown = page(document(SERVED))
    own, _, admin = shown.partition("<h2>admin</h2>")
    assert "/accounts/{ncaId}/functions" not in own
    assert admin.count("/accounts/{ncaId}/") == len(TWINS)
    assert admin.index("<details>") < admin.index("/accounts/{ncaId}/")
    assert len(shown) < len(page(document(OWN))) * 1.1
