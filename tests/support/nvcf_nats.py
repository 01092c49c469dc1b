"""A client of NATS as NVIDIA's worker is one: it logs in with a token and speaks plain NATS."""

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.support.waiting import PATIENCE_S


class LoginError(Exception):
    """The server closed the connection or refused the login."""


class Message(NamedTuple):
    """One message, with its headers in the payload if it has any."""

    subject: str
    reply: str
    payload: bytes


def nvcf_token(worker_token: str) -> str:
    """Return what NVIDIA's worker sends as ``auth_token`` in CONNECT (`docs/wire.md` §4.5)."""
    members = {"account": "Worker", "pluginName": "webhook", "payload": worker_token}
    text = json.dumps(members, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class NvcfNats:
    """The client. It reads only while one of its methods waits."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sids = self._inboxes = 0
        self._messages: deque[Message] = deque()
        self.errors: list[str] = []

    def publish(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Publish; what the server refuses is in ``errors`` after `flush`."""
        self._writer.write(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def subscribe(self, subject: str) -> None:
        """Subscribe; its messages are those of `next`."""
        self._sids += 1
        self._writer.write(f"SUB {subject} {self._sids}\r\n".encode())

    def new_inbox(self) -> str:
        """Return a reply subject, and subscribe to it."""
        self._inboxes += 1
        inbox = f"_INBOX.{id(self):022d}{self._inboxes}"
        self.subscribe(inbox)
        return inbox

    async def request(self, subject: str, payload: bytes = b"") -> bytes:
        """Return the payload of the first message that comes back."""
        inbox = self.new_inbox()
        self.publish(subject, payload, inbox)
        return (await self.next(inbox)).payload

    async def flush(self) -> list[str]:
        """Wait until the server has read everything; return what it has refused since the last."""
        self._writer.write(b"PING\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while await self._read() != "PONG":
                pass
        errors, self.errors = self.errors, []
        return errors

    async def next(self, subject: str = "") -> Message:
        """Return the next message, to ``subject`` if it is given; drops those before it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while not self._messages:
                    await self._read()
                message = self._messages.popleft()
                if subject in {"", message.subject}:
                    return message

    @property
    def unread(self) -> list[Message]:
        """The messages that were read and not asked for."""
        return list(self._messages)

    async def ended(self) -> None:
        """Wait until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while True:
                    await self._read()
            except LoginError:
                return

    async def _read(self) -> str:
        """Read one line, and the message that it announces; return its first word."""
        try:
            line = (await self._reader.readline()).decode().strip()
        except OSError as error:
            raise LoginError(str(self.errors)) from error
        words = line.split()
        if not words:
            raise LoginError(str(self.errors))
        if words[0] == "PING":
            self._writer.write(b"PONG\r\n")
        elif words[0] == "-ERR":
            self.errors.append(line)
        elif words[0] in {"MSG", "HMSG"}:
            payload = (await self._reader.readexactly(int(words[-1]) + 2))[:-2]
            numbers = 1 if words[0] == "MSG" else 2
            reply = words[3] if len(words) == 4 + numbers else ""
            self._messages.append(Message(words[1], reply, payload))
        return words[0]


@asynccontextmanager
async def nvcf_nats(url: str, auth_token: str, name: str = "") -> AsyncIterator[NvcfNats]:
    """Log in with this token. Raises `LoginError`."""
    host, _, port = url.removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = NvcfNats(reader, writer)
    options = {
        "verbose": False,
        "pedantic": False,
        "tls_required": False,
        "auth_token": auth_token,
        "name": name,
        "lang": "go",
        "version": "1.43.0",
        "protocol": 1,
        "echo": True,
        "headers": True,
        "no_responders": True,
    }
    try:
        writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
        await client.flush()
        yield client
    finally:
        writer.close()
