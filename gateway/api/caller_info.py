"""The route at which ``ngcsdk`` asks NGC whose key it was given, before each call.

It does so for keys that begin with ``nvapi-``, at the host of ``NGC_CLI_API_URL``. The body is
a form with the key as ``credentials`` (`docs/compatibility.md`).
"""

from aiohttp import web

from gateway.api.route import Api
from gateway.errors import BadRequest


async def caller_info(api: Api, request: web.Request) -> web.Response:
    """Return the account of the key in the form. Raises `BadRequest` and `Unauthenticated`."""
    form = await request.post()
    key = form.get("credentials")
    if not isinstance(key, str):
        raise BadRequest("The form has no credentials")
    credential = f"Bearer {key}".encode("utf-8", "surrogateescape")
    principal = api.authenticate(credential, api.clock())
    return web.json_response({"type": "SERVICE_KEY", "orgName": principal.account})
