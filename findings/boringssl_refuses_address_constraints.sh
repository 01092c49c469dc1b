#!/usr/bin/env bash
# grpcio: a certificate chain whose authority limits addresses cannot be trusted, though OpenSSL does.
#
# Versions   grpcio 1.85.3 (which carries BoringSSL), cryptography 49.0.0, Python 3.11 with its OpenSSL.
# Set-up     Two authorities for one machine alone, by name constraints (RFC 5280 §4.2.1.10). One permits
#            the name localhost, the other one also the addresses 127.0.0.0/8. Each issues a certificate
#            for localhost and 127.0.0.1. A grpcio server with each of them, on 127.0.0.1.
# Input      A unary call of grpcio's client to localhost that trusts the server's authority; and a
#            handshake of Python's ssl with the same authority.
# Expected   Both chains are valid: localhost is permitted by both, and a rule for addresses says nothing
#            about a name.
# Seen       Python's ssl accepts both. grpcio accepts the first, and fails the second with UNAVAILABLE:
#            CERTIFICATE_VERIFY_FAILED, "unsupported name constraint type", though it called a name.
#            BoringSSL has no code for constraints of addresses and refuses what it cannot check.
# So         An authority for grpcio's clients (and those of whatever else stands on BoringSSL) limits names
#            only.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 15 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.3 cryptography==49.0.0
cat > "$work/probe.py" <<'PY'
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(name_of("authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def issue(permitted: list[x509.GeneralName]) -> tuple[bytes, bytes, bytes]:
    """Return authority, certificate and key."""
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = (
        builder("authority", root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .sign(root, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    certificate = (
        builder("server", own)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = own.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return authority.public_bytes(pem), certificate.public_bytes(pem), key


def call(authority: bytes, certificate: bytes, key: bytes) -> tuple[str, str]:
    """Return what grpcio and what Python's ssl say of the server."""
    server = grpc.server(ThreadPoolExecutor(2))
    echo = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("a.B", {"Echo": echo}),)
    )
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)])
    )
    server.start()
    credentials = grpc.ssl_channel_credentials(authority)
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        try:
            said = channel.unary_unary("/a.B/Echo")(b"hello", timeout=10).decode()
        except grpc.RpcError as error:
            said = f"{error.code().name}: {error.details()}"
    context = ssl.create_default_context(cadata=authority.decode())
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost"):
                openssl = "accepted"
    except ssl.SSLError as error:
        openssl = str(error)
    server.stop(None)
    return said, openssl


localhost = x509.DNSName("localhost")
names_only = call(*issue([localhost]))
with_addresses = call(*issue([localhost, x509.IPAddress(IPv4Network("127.0.0.0/8"))]))
print("names only:     ", *names_only, sep="\n    ")
print("with addresses: ", *with_addresses, sep="\n    ")
as_described = (
    names_only == ("hello", "accepted")
    and with_addresses[1] == "accepted"
    and with_addresses[0].startswith("UNAVAILABLE")
    and "unsupported name constraint type" in with_addresses[0]
)
sys.exit(0 if as_described else 1)
PY
"$work/venv/bin/python" "$work/probe.py"
