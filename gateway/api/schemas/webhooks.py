"""The secret with which an account's webhooks are signed."""

from gateway.api.schemas.fields import View


class WebhookSecretResponse(View):
    """The secret, for receivers to check signatures with."""

    secret: str
    """``whsec_`` and the key in base64, as libraries for Standard Webhooks take it."""
    created_at: str
    previous_secret: str | None = None
    """The secret before it, while that signs too."""
    previous_expires_at: str | None = None
