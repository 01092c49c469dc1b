"""The REST API of the control plane (`spec/control-plane.md`), on aiohttp."""
