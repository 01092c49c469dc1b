"""Responses of the health endpoints."""

import json

from gateway.telemetry.health import ProcessHealth


def test_readiness_gives_every_reason_and_liveness_none() -> None:
    health = ProcessHealth()
    reasons = ["NATS is not connected", "draining"]
    health.add(lambda: reasons[0])
    health.add(lambda: reasons[1])
    health.add(lambda: "")
    live = health.respond(b"/health/live")
    assert live is not None
    assert live[0] == 200
    for path, status in ((b"/health/ready", 503), (b"/health", 500)):
        answer = health.respond(path)
        assert answer is not None
        headers, problem = dict(answer[1]), json.loads(answer[2])
        assert (answer[0], headers[b"content-type"]) == (status, b"application/problem+json")
        assert problem["reasons"] == reasons
        assert problem["instance"] == path.decode()
        assert problem["requestId"] == headers[b"x-request-id"].decode()
    reasons[:] = ["", ""]
    fine = (200, [(b"content-type", b"application/json")], b'{"status":"OK"}')
    assert health.respond(b"/health/ready") == fine
    assert health.respond(b"/other") is None
