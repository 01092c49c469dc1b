"""Accounts that may use a function of another account (`docs/wire.md` §14.2, authorizations)."""

from typing import Annotated

from gateway.api.schemas.fields import Body, MaybeText, NcaId, View, items, unique


class Party(Body):
    """An account, or ``*`` for all accounts."""

    nca_id: NcaId
    client_id: MaybeText | None = None
    """A client that acts for the account. When given, only this client is authorized."""


class Authorize(Body):
    """All authorized accounts. They replace the previous ones."""

    authorized_parties: Annotated[
        list[Party],
        items(1000),
        unique(lambda party: (party.nca_id, party.client_id or ""), "the parties"),
    ]


class AuthorizeOne(Body):
    """An account to add or to remove."""

    authorized_party: Party


class PartyView(View):
    """An authorized account, or one client of it."""

    nca_id: str
    client_id: str | None = None


class SharedView(View):
    """A function or version with its authorized accounts."""

    id: str
    nca_id: str
    version_id: str | None = None
    authorized_parties: list[PartyView]


class SharedResponse(View):
    """A function or version."""

    function: SharedView


class SharedListResponse(View):
    """The versions of a function, oldest first."""

    functions: list[SharedView]
