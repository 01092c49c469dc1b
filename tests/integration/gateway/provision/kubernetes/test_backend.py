"""The connections of the Kubernetes backend to a server that does not end them."""

import os
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import yaml

from gateway.provision.kubernetes.backend import KubernetesBackend
from gateway.provision.kubernetes.client import ClusterLogin
from gateway.provision.kubernetes.manifests import PodOptions
from tests.support.certificates import Authority
from tests.support.waiting import until

EMPTY = b'{"items": [], "metadata": {"resourceVersion": "1"}}'
LIST = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(EMPTY), EMPTY)
WATCH = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class SilentServer:
    """A server with TLS and an empty list of everything; it reads no more once it is watched.

    So it does not answer the end of a TLS connection, as a machine that hangs.
    """

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        chain, key = authority.issue("apiserver", "localhost")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[ssl.SSLSocket] = []
        self.watches = 0
        self.kubeconfig = folder / "kubeconfig.yaml"
        cluster = {
            "server": f"https://localhost:{self._listener.getsockname()[1]}",
            "certificate-authority": str(authority.file),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": "any"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))
        threading.Thread(target=self._accept, daemon=True).start()

    def own_sockets(self) -> set[str]:
        found = [self._listener, *self._connections]
        return {f"socket:[{os.fstat(one.fileno()).st_ino}]" for one in found}

    def close(self) -> None:
        # Wakes the thread, which a close does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._connections:
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                connection = self._context.wrap_socket(raw, server_side=True)
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: ssl.SSLSocket) -> None:
        received = b""
        while not (b"watch=true" in received and received.endswith(b"\r\n\r\n")):
            received += connection.recv(65_536)
            if received.endswith(b"\r\n\r\n") and b"watch=true" not in received:
                connection.sendall(LIST)
                received = b""
        connection.sendall(WATCH)
        self.watches += 1


def sockets() -> set[str]:
    """Return the open sockets of this process."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {one for one in found if one.startswith("socket:")}


async def test_a_closed_backend_has_no_connection_left(tmp_path: Path) -> None:
    """A cancelled call leaves a TLS shutdown for which nobody waits, for up to 30 s."""
    server = SilentServer(tmp_path)
    try:
        before = sockets()
        backend = KubernetesBackend(ClusterLogin(server.kubeconfig), PodOptions("gpus", "image"))
        await backend.open()
        await until(lambda: server.watches == 2)
        assert len(sockets() - before - server.own_sockets()) == 2
        await backend.close()
        assert sockets() - before - server.own_sockets() == set()
    finally:
        server.close()
