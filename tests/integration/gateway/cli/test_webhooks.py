"""``gateway webhooks``."""

from uuid import uuid4

from tests.integration.gateway.cli.shell import Shell
from tests.support.control import SCOPES, ControlPlane


async def test_the_secret_is_printed_and_rotated(plane: ControlPlane) -> None:
    client = await plane.client(f"own-{uuid4().hex}", SCOPES | {"account_setup"})
    shell = Shell(plane.url, client)
    first = await shell.run("webhooks", "secret")
    assert first.code == 0
    assert first.out.startswith("whsec_")
    assert first.err == ""
    rotated = await shell.run("webhooks", "secret", "--rotate")
    assert rotated.out.startswith("whsec_")
    assert rotated.out != first.out
    assert "signs too until" in rotated.err
    shown = await shell.json("webhooks", "secret")
    assert shown["secret"] == rotated.out.strip()
    assert shown["previousSecret"] == first.out.strip()
