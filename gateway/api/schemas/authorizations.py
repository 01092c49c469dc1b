"""Who else may use a function (§2, authorizations)."""

from typing import Annotated

from pydantic import Field

from gateway.api.schemas.fields import Body, NcaId, View, unique


class Party(Body):
    """An account, or ``*`` for all of them."""

    nca_id: NcaId
    client_id: str | None = None
    """Not supported: a whole account is authorized, or nobody of it."""


class Authorize(Body):
    """Everybody who is to be authorized: replaces who was."""

    authorized_parties: Annotated[
        list[Party], unique(lambda party: party.nca_id, "the accounts"), Field(max_length=1000)
    ]


class AuthorizeOne(Body):
    """One account to add or to remove."""

    authorized_party: Party


class PartyView(View):
    """An account that is authorized."""

    nca_id: str


class SharedView(View):
    """A function or a version, and who may use it."""

    id: str
    nca_id: str
    version_id: str | None = None
    authorized_parties: list[PartyView] | None = None


class SharedAnswer(View):
    """One function or version."""

    function: SharedView


class SharedListAnswer(View):
    """The versions of a function."""

    functions: list[SharedView]
