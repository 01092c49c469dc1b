#!/usr/bin/env bash
# grpcio: streams sent before the client could know the limit are reset with ENHANCE_YOUR_CALM.
#
# Versions   grpcio 1.85.3 as the server, h2 4.3.0 as the client, Python 3.11.
# Set-up     A grpcio server with grpc.max_concurrent_streams 3 and one method that responds after a
#            second. A client that sends its preface and eight calls at once, before it has read
#            anything, as RFC 9113 §6.5.3 lets it: it cannot know the server's settings yet.
# Input      Eight unary calls on one new connection, three of them within the limit.
# Expected   What is above the limit is reset with REFUSED_STREAM, which says that it was not processed
#            and may be sent again (RFC 9113 §5.1.2 and §8.7); or it waits.
# Seen       Three calls get their responses. Five are reset with ENHANCE_YOUR_CALM, which says nothing of
#            the kind: a client that keeps to the RFC must take these calls for failed.
# So         A client of a gRPC server sends nothing before it has the server's SETTINGS, or sends such a
#            call again only if it may run twice.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 15 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.3 h2==4.3.0
cat > "$work/probe.py" <<'PY'
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import h2.connection
import h2.errors
import h2.events

CALLS = 8
LIMIT = 3


def slow(request: bytes, _: grpc.ServicerContext) -> bytes:
    time.sleep(1)
    return request


server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_concurrent_streams", LIMIT)])
methods = {"Slow": grpc.unary_unary_rpc_method_handler(slow)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()

client = h2.connection.H2Connection()
client.initiate_connection()
headers = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "127.0.0.1"),
    (":path", "/a.B/Slow"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
for number in range(CALLS):
    client.send_headers(2 * number + 1, headers)
    client.send_data(2 * number + 1, b"\0\0\0\0\1x", end_stream=True)
results: dict[int, str] = {}
with socket.create_connection(("127.0.0.1", port)) as connection:
    connection.sendall(client.data_to_send())
    connection.settimeout(10)
    while len(results) < CALLS and (data := connection.recv(65_536)):
        for event in client.receive_data(data):
            if isinstance(event, h2.events.StreamReset):
                results[event.stream_id] = h2.errors.ErrorCodes(event.error_code).name
            elif isinstance(event, h2.events.StreamEnded):
                results[event.stream_id] = "response"
        connection.sendall(client.data_to_send())
server.stop(None)
for number, result in sorted(results.items()):
    print(number, result)
found = list(results.values())
as_described = found.count("response") == LIMIT and found.count("ENHANCE_YOUR_CALM") == 5
sys.exit(0 if as_described else 1)
PY
"$work/venv/bin/python" "$work/probe.py"
