"""Signatures are those of Standard Webhooks."""

from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.webhooks.signing import SECRET_BYTES, secret_of, signed_headers


def test_the_specifications_vector() -> None:
    headers = signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_receiver_with_either_secret_accepts_and_with_another_does_not() -> None:
    new, old, other = (secret_of(bytes([n]) * SECRET_BYTES) for n in range(3))
    body = b'{"type":"request.done"}'
    headers = signed_headers([new, old], "msg_1", int(datetime.now(UTC).timestamp()), body)
    for secret in (new, old):
        assert Webhook(secret).verify(body, headers) == {"type": "request.done"}
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + b" ", headers)
