"""Health answers."""

import json

from gateway.seen.health import Health


def test_readiness_gives_every_reason_and_liveness_none() -> None:
    health = Health()
    reasons = ["NATS is not connected", "draining"]
    health.add(lambda: reasons[0])
    health.add(lambda: reasons[1])
    health.add(lambda: "")
    live = health.answer(b"/health/live")
    assert live is not None
    assert live[0] == 200
    for path, status in ((b"/health/ready", 503), (b"/health", 500)):
        answer = health.answer(path)
        assert answer is not None
        assert (answer[0], answer[1]) == (status, b"application/problem+json")
        assert json.loads(answer[2])["reasons"] == reasons
    reasons[:] = ["", ""]
    assert health.answer(b"/health/ready") == (200, b"application/json", b'{"status":"OK"}')
    assert health.answer(b"/other") is None
