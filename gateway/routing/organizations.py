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
    """A path below an organization. ``path`` is the same one below `BASE`."""

    organization: str
    path: bytes


def parse_organization_path(path: bytes) -> OrganizationPath | None:
    """Return what ``path``, which has no query, names; `None` if no organization is in it."""
    found = _is_below(path)
    if found is None:
        return None
    organization = unquote(found[1].decode("latin-1"), errors="replace")
    return OrganizationPath(organization, BASE.encode() + found[2])


def require_organization(organization: str, account: str) -> None:
    """Raise `Forbidden` unless the organization is the account of the credential."""
    if organization != account:
        raise Forbidden(
            f"The path names another organization than the credential's account, which is {account}"
        )
