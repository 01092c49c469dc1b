"""The REST API (`spec/control-plane.md`), on aiohttp."""
