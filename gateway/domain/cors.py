"""Which web pages may read the responses of a function, or of the gateway itself.

The rules are those of the Fetch standard's CORS protocol; which headers they become is in
`gateway.routing.cross_origin`. Sources: `docs/wire.md` §1.4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from sys import intern
from typing import Self

from gateway.domain.documents import Document
from wire.origins import ANY_ORIGIN


@dataclass(frozen=True, slots=True)
class PagePolicy:
    """The origins whose pages may read responses.

    ``origins`` as from `wire.origins.normal_origin`. ``allows_credentials``: a page may also send
    what the browser adds by itself, such as cookies; not for all origins.
    """

    origins: frozenset[str]
    allows_credentials: bool = False

    @property
    def is_open(self) -> bool:
        """Whether every page may read responses."""
        return ANY_ORIGIN in self.origins

    def allows(self, origin: bytes | None) -> bool:
        """Whether a page of the origin, a value of the header ``Origin``, may read responses."""
        return self.is_open or (origin is not None and origin.decode("latin-1") in self.origins)

    def document(self) -> dict[str, object]:
        """Return the form in which records and the API have a policy."""
        return {"origins": sorted(self.origins), "credentials": self.allows_credentials}

    @classmethod
    def read(cls, document: Document) -> Self | None:
        """Read that form; without origins there is no policy. Raises `RecordError`."""
        origins = frozenset(intern(origin) for origin in document.ordered_texts("origins"))
        credentials = document.has("credentials") and document.flag("credentials")
        return cls(origins, credentials) if origins else None


def page_policy_of(spec: Mapping[str, object]) -> PagePolicy | None:
    """Return the policy in a version's spec, its member ``cors``; `None` if there is none."""
    document = Document(spec)
    return PagePolicy.read(document.part("cors")) if document.has("cors") else None


OPEN = PagePolicy(frozenset({ANY_ORIGIN}))
"""Every page may read responses."""
