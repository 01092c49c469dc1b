"""An issuer of JWTs with a JWKS endpoint; a test rotates its keys and makes it fail."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

NAME = "https://issuer.example.com"
AUDIENCE = "nvcf"


class TokenIssuer:
    """Signs JWTs and publishes its public keys; ``fetches`` counts the requests for them."""

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []
        self.status = 200
        self.body: bytes | None = None
        self.fetches = 0
        self.asked = asyncio.Event()
        self.url = ""
        self.rotate()

    def rotate(self, *, publish: bool = True) -> None:
        """Sign with a new key from now on; if ``publish``, it replaces the published keys."""
        self.key = generate_private_key(SECP256R1())
        self.kid = f"key-{time.monotonic_ns()}"
        if publish:
            self.publish()

    def publish(self) -> None:
        public = json.loads(ECAlgorithm.to_jwk(self.key.public_key()))
        self.published = [{**public, "kid": self.kid, "use": "sig", "alg": "ES256"}]

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": list(self.published)}

    def token(self, subject: str = "client-1", *scopes: str, **claims: Any) -> str:
        """Return a JWT that is valid for 60 s; a claim given as `None` is left out."""
        now = int(time.time())
        members = {
            "iss": NAME,
            "aud": AUDIENCE,
            "sub": subject,
            "scopes": list(scopes),
            "iat": now,
            "exp": now + 60,
            **claims,
        }
        members = {name: value for name, value in members.items() if value is not None}
        return jwt.encode(members, self.key, "ES256", headers={"kid": self.kid})

    async def serve(self, _: web.Request) -> web.Response:
        self.fetches += 1
        self.asked.set()
        body = json.dumps(self.jwks).encode() if self.body is None else self.body
        return web.Response(status=self.status, body=body, content_type="application/json")


@asynccontextmanager
async def token_issuer() -> AsyncIterator[TokenIssuer]:
    """Run an issuer while the block runs; it publishes its keys at ``url``."""
    issuer = TokenIssuer()
    app = web.Application()
    app.router.add_get("/jwks.json", issuer.serve)
    async with TestServer(app) as server:
        issuer.url = str(server.make_url("/jwks.json"))
        yield issuer
