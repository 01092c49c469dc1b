"""nginx and HAProxy in front of a gateway, from the files in ``deploy/`` or as they come."""

import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.free_ports import free_port
from tests.support.programs import ROOT, Program
from tests.support.waiting import until_blocking

_FOLDERS = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"
"""Where packages put these programs, which are not on every user's path."""

GATEWAY = "127.0.0.1:8080"
"""The gateway in the files of ``deploy/``."""
NGINX_DEFAULTS = """
server {
    listen 127.0.0.1:80;
    location / {
        proxy_pass http://127.0.0.1:8080;
    }
}
"""
"""The fewest lines that make nginx a proxy; all else is nginx's default."""

_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def find(name: str) -> str | None:
    """Return the path of a program, `None` if it is not on this machine."""
    return shutil.which(name) or shutil.which(name, path=_FOLDERS)


def deployed(name: str) -> str:
    """Return a file of ``deploy/``."""
    return (ROOT / "deploy" / name).read_text()


def nginx_command(folder: Path, site: str) -> list[str]:
    """Return the command that runs nginx with the file ``site``, with its files in ``folder``."""
    (folder / "site.conf").write_text(site)
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder))
    return [find("nginx") or "nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)]


def haproxy_command(folder: Path, configuration: str) -> list[str]:
    """Return the command that runs HAProxy with the file ``configuration``."""
    file = folder / "haproxy.cfg"
    file.write_text(configuration)
    return [find("haproxy") or "haproxy", "-db", "-f", str(file)]


@contextmanager
def nginx(folder: Path, site: str, gateway_port: int) -> Iterator[int]:
    """Run nginx with the file ``site``; yield its port."""
    port = free_port()
    with _running(nginx_command(folder, _with_ports(site, "listen", port, gateway_port)), port):
        yield port


@contextmanager
def haproxy(folder: Path, configuration: str, gateway_port: int) -> Iterator[int]:
    """Run HAProxy with the file ``configuration``; yield its port."""
    port = free_port()
    text = _with_ports(configuration, "bind", port, gateway_port)
    with _running(haproxy_command(folder, text), port):
        yield port


def with_tls(text: str, certificate: Path, key: Path) -> str:
    """Return a file of ``deploy/`` that listens with TLS only, as its comments say."""
    together = certificate.with_suffix(".pem")
    together.write_text(certificate.read_text() + key.read_text())
    for before, after in (
        ("\n    bind :80 tcp-ut 45s\n", "\n"),
        ("    # bind :443 ssl crt /etc/haproxy/invocation.pem", f"    bind :80 ssl crt {together}"),
        ("\n    listen 80;\n", "\n"),
        ("    # listen 443 ssl http2;", "    listen 127.0.0.1:80 ssl http2;"),
        ("# ssl_certificate     /etc/nginx/invocation.pem", f"ssl_certificate {certificate}"),
        ("# ssl_certificate_key /etc/nginx/invocation.key", f"ssl_certificate_key {key}"),
    ):
        text = text.replace(before, after)
    return text


def with_gateways(text: str, addresses: Sequence[str]) -> str:
    """Return a file of ``deploy/`` with these gateways, ``host:port``, in place of its one."""
    (line,) = [line for line in text.splitlines() if GATEWAY in line]
    lines = [
        line.replace("gateway1", f"gateway{number}").replace(GATEWAY, address)
        for number, address in enumerate(addresses, 1)
    ]
    return text.replace(line, "\n".join(lines))


def _with_ports(text: str, listens: str, port: int, gateway_port: int) -> str:
    """Return ``text`` with free ports in place of 80 and 8080, each of which it has once."""
    for before, after in (
        (f"\n    {listens} 127.0.0.1:80", f"\n    {listens} 127.0.0.1:{port}"),
        (f"\n    {listens} :80 ", f"\n    {listens} 127.0.0.1:{port} "),
        (f"\n    {listens} 80;", f"\n    {listens} 127.0.0.1:{port};"),
    ):
        text = text.replace(before, after)
    assert text.count(GATEWAY) == text.count(f"127.0.0.1:{port}") == 1
    return text.replace(GATEWAY, f"127.0.0.1:{gateway_port}")


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    program = Program(command)
    try:
        until_blocking(
            lambda: _accepts(port) or program.process.poll() is not None,
            what=f"{command[0]} to listen, or its end",
        )
        assert program.process.poll() is None, program.output
        yield
    finally:
        program.stop()


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
