"""A worker's NATS login, as the member ``nats`` of the response to connect."""

from collections.abc import Mapping
from typing import NamedTuple

_MEMBER = "nats"


class NatsLogin(NamedTuple):
    """Servers and credentials of one worker; ``api`` is the prefix of JetStream's API subjects."""

    urls: tuple[str, ...]
    jwt: str
    seed: str
    api: str

    def __repr__(self) -> str:
        return f"NatsLogin({self.urls})"

    def members(self) -> dict[str, object]:
        """Return the members to add to the response."""
        return {
            _MEMBER: {
                "urls": list(self.urls),
                "jwt": self.jwt,
                "seed": self.seed,
                "apiPrefix": self.api,
            }
        }


def read_login(response: Mapping[str, object]) -> NatsLogin | None:
    """Return the login in a response to connect, `None` if it has none.

    Raises KeyError, TypeError or ValueError for one that cannot be used.
    """
    login = response.get(_MEMBER)
    if not isinstance(login, dict):
        return None
    urls = login["urls"]
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise TypeError("nats.urls")
    return NatsLogin(
        tuple(urls), _text(login, "jwt"), _text(login, "seed"), _text(login, "apiPrefix")
    )


def _text(members: Mapping[str, object], name: str) -> str:
    value = members[name]
    if not isinstance(value, str) or not value:
        raise TypeError(name)
    return value
