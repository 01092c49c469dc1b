"""The REST API of the control plane (`docs/wire.md` §9), on aiohttp."""
