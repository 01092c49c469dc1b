"""An authenticator for tests in which every caller has an API key."""

from gateway.auth.authenticator import Authenticator
from gateway.auth.bootstrap import BootstrapCheck
from gateway.auth.signing import VerificationKeys
from gateway.domain.readmodel import ReadModel


def key_authenticator(model: ReadModel) -> Authenticator:
    """Return an authenticator that knows the API keys of ``model`` and no other credential."""
    return Authenticator(model, VerificationKeys(), BootstrapCheck())
