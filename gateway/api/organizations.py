"""The paths at which NGC serves NVCF's routes: below an organization, and a team of it.

NVIDIA's ``ngcsdk`` and its Terraform provider call these paths only. The credential determines the
account here, so organization and team are ignored.
"""

from gateway.api.route import AnyRoute

_BASE = "/v2/nvcf/"
_ORGANIZATION = "/v2/orgs/{orgName}/nvcf/"
_TEAM = "/v2/orgs/{orgName}/teams/{teamName}/nvcf/"


def organization_paths(route: AnyRoute) -> tuple[str, ...]:
    """Return the further paths of a route: none for super administrators' and other services'."""
    rest = route.path.removeprefix(_BASE)
    if route.is_admin or rest == route.path:
        return ()
    return (_ORGANIZATION + rest, _TEAM + rest)
