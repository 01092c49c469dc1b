"""Every answer that a test of the API gets must be one that strict clients can read."""

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def strict_answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at whatever `tests.support.control.Client` is answered, in tests that have one."""
    if "plane" not in request.fixturenames:
        return
    # Imported here: most tests of the gateway have no API.
    from tests.support import control, strict_sdk  # noqa: PLC0415

    call = control.Client.call

    async def checked(
        client: control.Client, method: str, path: str, json: object = None, **how: Any
    ) -> control.ApiResponse:
        told = await call(client, method, path, json, **how)
        sent = {**client.headers, **how.get("headers", {})}
        content_type = told.headers.get("content-type", "").partition(";")[0]
        if method != "HEAD":
            strict_sdk.check(path, sent, told.status, content_type, told.body)
        return told

    monkeypatch.setattr(control.Client, "call", checked)
