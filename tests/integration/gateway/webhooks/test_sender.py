"""Attempts to deliver webhooks, over real connections."""

import asyncio
import socket
import threading
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.webhooks.addresses import WebhookRules
from gateway.webhooks.sender import WebhookSender
from runtime.tasks import spawn
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhooks import webhook_receiver

RULES = WebhookRules(private_networks=(ip_network("127.0.0.0/8"),), allows_http=True)


async def test_names_that_take_long_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    go_on = threading.Event()
    look_up = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if str(host).startswith("slow"):
            asked.append(host)
            go_on.wait(PATIENCE_S)
            raise socket.gaierror("no name server responds")
        if host == "quick.example":
            host = "127.0.0.1"
        return look_up(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    sender = WebhookSender(RULES)
    async with webhook_receiver() as receiver:
        port = urlsplit(receiver.url).port
        attempts = [
            spawn(sender.send(f"http://slow{number}.example/", {}, b"", 0.0), "attempt")
            for number in range(20)
        ]
        await until(lambda: len(asked) == 20, what="lookups")
        quick = await sender.send(f"http://quick.example:{port}/", {}, b"", 0.0)
        assert (quick.status, quick.error) == (204, "")
        go_on.set()
        assert {attempt.error for attempt in await asyncio.gather(*attempts)} == {"name_unknown"}
    await sender.close()
