"""The store in NATS KV."""

import sys


def _import_nats() -> None:
    """Import `nats-py` without its optional dependency aiohttp.

    It tries to import aiohttp, 10 MiB, to connect to ``ws://`` addresses, which `nats.urls` does
    not accept. A process without the REST API has no other use for it.
    """
    if "nats" in sys.modules or "aiohttp" in sys.modules:
        return
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        import nats  # noqa: F401, PLC0415
    finally:
        del sys.modules["aiohttp"]


_import_nats()
