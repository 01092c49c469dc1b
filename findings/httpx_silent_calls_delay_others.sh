#!/usr/bin/env bash
# httpx over HTTP/2: calls that are silent hold up the response to another call on their connection.
#
# Versions   httpx 0.28.1, httpcore 1.0.9, h2 4.3.0; Python 3.11, Linux.
# Set-up     A server made of h2 on loopback answers /quick at once and /silent never. One AsyncClient
#            with http2=True, timeout 4 s.
# Input      Two GET /silent; half a second later GET /quick, on the same connection.
# Expected   /quick is answered within milliseconds: HTTP/2 has many streams for that.
# Seen       With two silent calls /quick ends with its 200 only 4.0 s after the server has sent it,
#            when a silent call has run into its timeout. With one or none it ends at once.
# Why        Who waits for a response reads the socket for all, under a lock, until something of its
#            own comes; the others wait for the lock, each for its turn, and not for their response.
# So         Calls that wait long (a queue, a model that starts) want a connection each, or another
#            client: docs/python-client.md.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 20 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    httpx==0.28.1 httpcore==1.0.9 h2==4.3.0
cat > "$work/probe.py" <<'PY'
import asyncio
import sys
import time

import h2.config
import h2.connection
import h2.events
import httpx

TIMEOUT_S = 4.0

class Server(asyncio.Protocol):
    connections = 0
    sent_at = 0.0

    def connection_made(self, transport):
        Server.connections += 1
        self.transport = transport
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.http2.initiate_connection()
        transport.write(self.http2.data_to_send())

    def data_received(self, data):
        for event in self.http2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived) and dict(event.headers)[b":path"] == b"/quick":
                self.http2.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
                Server.sent_at = time.monotonic()
        self.transport.write(self.http2.data_to_send())

async def quick_s(port, silent):
    """Return how long /quick took after its response was sent, and its end, beside silent calls."""
    async with httpx.AsyncClient(
        http1=False, http2=True, timeout=TIMEOUT_S, base_url=f"http://127.0.0.1:{port}"
    ) as client:
        await client.get("/quick")
        waiting = [asyncio.create_task(client.get("/silent")) for _ in range(silent)]
        await asyncio.sleep(0.5)
        try:
            end = (await client.get("/quick")).status_code
        except httpx.ReadTimeout:
            end = "ReadTimeout"
        took = time.monotonic() - Server.sent_at
        await asyncio.gather(*waiting, return_exceptions=True)
        return took, end

async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    times = []
    for silent in (0, 1, 2):
        Server.connections = 0
        took, end = await quick_s(port, silent)
        times.append(took)
        print(f"{silent} silent: /quick after {took:.2f} s, {end}, {Server.connections} connection")
    return times[0] < 1 and times[2] > 2 and Server.connections == 1

sys.exit(not asyncio.run(main()))
PY
"$work/venv/bin/python" "$work/probe.py"
