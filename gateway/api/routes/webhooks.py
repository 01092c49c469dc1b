"""The secret with which an account's webhooks are signed (`docs/webhooks.md`).

Who has it can make what receivers take for the gateway's: the scope is that of keys.
"""

from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.webhooks import WebhookSecretResponse
from gateway.auth.scopes import SETUP
from gateway.domain.lifecycle import timestamp
from gateway.webhooks.secrets import WebhookSecret


async def get(api: Api, call: Call[None, None]) -> WebhookSecretResponse:
    """Return the secret, which is made when it is asked for first."""
    return _view(await api.webhook_secrets.of(call.account), api.clock())


async def rotate(api: Api, call: Call[None, None]) -> WebhookSecretResponse:
    """Make a new secret. The one before signs too for a day."""
    return _view(await api.webhook_secrets.rotate(call.account), api.clock())


def _view(secret: WebhookSecret, now: float) -> WebhookSecretResponse:
    has_previous = secret.is_previous_valid(now)
    return WebhookSecretResponse(
        secret=secret.value,
        created_at=timestamp(secret.created_at),
        previous_secret=secret.previous if has_previous else None,
        previous_expires_at=timestamp(secret.previous_until) if has_previous else None,
    )


_PATH = "/v2/webhooks/secret"

ROUTES: tuple[AnyRoute, ...] = (
    Route("GET", _PATH, get, "Get the secret", "webhooks", (SETUP,), WebhookSecretResponse),
    Route(
        "POST",
        f"{_PATH}/rotate",
        rotate,
        "Rotate the secret",
        "webhooks",
        (SETUP,),
        WebhookSecretResponse,
    ),
)
