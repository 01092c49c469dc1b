"""Authorized parties as records hold them: an account, or one client of an account.

A party is one text, ``ACCOUNT`` or ``ACCOUNT CLIENT``: neither id contains a space.
"""


def party_of(account: str, client_id: str = "") -> str:
    """Return the party that is ``account``, or only its client ``client_id``."""
    return f"{account} {client_id}" if client_id else account


def split_party(party: str) -> tuple[str, str]:
    """Return account and client id of a party; the client id is empty for a whole account."""
    account, _, client_id = party.partition(" ")
    return account, client_id
