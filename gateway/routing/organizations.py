"""NGC's front door: NVCF's routes below an organization, and perhaps a team of it.

NVIDIA's ``ngcsdk`` and its Terraform provider call these paths only. The organization is the
account. NVCF has no teams, so a team is part of its organization (`docs/wire.md` §9.4). Pure.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

from gateway.errors import Forbidden

BASE = "/v2/nvcf/"
VARIABLE = "orgName"
TEMPLATE = f"/{{version:v[23]}}/orgs/{{{VARIABLE}}}{{team:(?:/teams?/[^/]+)?}}/nvcf/"
"""What may be in place of `BASE`, as a path template of aiohttp."""

_is_below = re.compile(rb"/v[23]/orgs/([^/]+)(?:/teams?/[^/]+)?/nvcf/(.*)", re.DOTALL).fullmatch


class OrganizationPath(NamedTuple):
    """A path and the organization that it was below, `None` for none."""

    organization: str | None
    path: bytes


def parse_organization_path(path: bytes) -> OrganizationPath:
    """Return ``path``, which has no query, as it is below `BASE`; any other path as it is."""
    found = _is_below(path)
    if found is None:
        return OrganizationPath(None, path)
    organization = unquote(found[1].decode("latin-1"), errors="replace")
    return OrganizationPath(organization, BASE.encode() + found[2])


def require_organization(organization: str | None, account: str) -> None:
    """Raise `Forbidden` if an organization is named that is not the credential's account."""
    if organization is not None and organization != account:
        raise Forbidden(
            f"The path names another organization than the credential's account, which is {account}"
        )
