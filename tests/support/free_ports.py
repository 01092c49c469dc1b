"""Ports for programs that must be told one before they listen."""

import random
import socket
from contextlib import suppress


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody else gets meanwhile: Linux gives only from 32768 on."""
    ports: list[int] = []
    for port in random.sample(range(10_000, 32_768), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            break
    return ports


def free_port() -> int:
    """Return one of the `free_ports`."""
    (port,) = free_ports(1)
    return port
