"""Paths below an organization, as NGC has them."""

import pytest

from gateway.errors import Forbidden
from gateway.routing.organizations import (
    OrganizationPath,
    parse_organization_path,
    require_organization,
)


@pytest.mark.parametrize(
    "base", ["/v2/orgs/o", "/v3/orgs/o", "/v2/orgs/o/teams/t", "/v3/orgs/o/team/t"]
)
def test_the_rest_of_a_path_is_nvcfs(base: str) -> None:
    found = parse_organization_path(f"{base}/nvcf/assets/1".encode())
    assert found == OrganizationPath("o", b"/v2/nvcf/assets/1")


def test_a_name_may_be_percent_encoded() -> None:
    assert parse_organization_path(b"/v2/orgs/a%40b/nvcf/x").organization == "a@b"


@pytest.mark.parametrize(
    "path",
    [
        b"/v2/nvcf/functions",
        b"/v2/orgs/o",
        b"/v2/orgs//nvcf/functions",
        b"/v2/orgs/o/nvcf",
        b"/v2/orgs/o/x/y/nvcf/functions",
        b"/v2/orgs/o/teams//nvcf/functions",
        b"/v1/orgs/o/nvcf/functions",
        b"/x/v2/orgs/o/nvcf/functions",
    ],
)
def test_another_path_stays_as_it_is(path: bytes) -> None:
    assert parse_organization_path(path) == OrganizationPath(None, path)


def test_the_organization_is_the_account() -> None:
    require_organization("acme", "acme")
    require_organization(None, "acme")
    with pytest.raises(Forbidden, match="acme"):
        require_organization("other", "acme")
