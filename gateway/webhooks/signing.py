"""Signatures of webhooks, as the specification Standard Webhooks 1.0.0 says ("Signature scheme").

Signed is ``<webhook-id>.<webhook-timestamp>.<body>`` with HMAC-SHA256; a secret is shown as
``whsec_`` and the key in base64. Pure.
"""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence

SECRET_BYTES = 32
"""Random bytes of a secret: 24 to 64 by the specification."""
PREFIX = "whsec_"


def secret_of(random: bytes) -> str:
    """Return the secret whose key is ``random``, `SECRET_BYTES` long."""
    if len(random) != SECRET_BYTES:
        raise ValueError(f"a webhook secret has {SECRET_BYTES} bytes")
    return PREFIX + b64encode(random).decode()


def signed_headers(
    secrets: Sequence[str], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Return the headers of one attempt, with one signature for each secret.

    ``message_id`` is the same in all attempts and has no dot; ``timestamp`` is when this attempt is
    made, in Unix seconds.
    """
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_signature(secret, signed)}" for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = b64decode(secret.removeprefix(PREFIX), validate=True)
    return b64encode(hmac.digest(key, signed, "sha256")).decode()
