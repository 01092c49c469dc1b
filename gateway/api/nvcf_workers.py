"""NVIDIA's own workers as external workers: their token, their registration, their login.

They have a registration token (`gateway.auth.registration`) and keep it: what `connect` returns is
the same token, so that a worker that starts again in its place registers again. A worker names its
instance itself; the record has a UUID that is made of the name. What its calls do not tell, its
connection to NATS does (`gateway.api.nvcf_presence`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID, uuid5

from gateway.api.route import Api, Call
from gateway.api.routes.workers import Workers
from gateway.api.schemas.workers import ConnectBody
from gateway.auth.registration import Registrations
from gateway.auth.signing import TokenSigner, read_unverified
from gateway.auth.tokens import VersionToken, WorkerIdentity, registration_of, worker_principal
from gateway.domain.catalog import Catalog
from gateway.domain.principal import Principal
from gateway.errors import BadRequest, Forbidden, GatewayError, NotFound, Unauthenticated
from queueing.interface import TokenRefused, WorkerLogin
from wire.ids import parse_uuid

METADATA = "urn:nvcf:function-metadata"
SECRETS = "urn:nvcf:function-secrets"
"""The audiences of assertions; no route of the gateway accepts them."""
_MAX_NAME_CHARS = 256


class Authenticate(Protocol):
    """`gateway.auth.authenticator.Authenticator.authenticate`."""

    def __call__(self, authorization: bytes | None, now: float) -> Principal: ...


class ValidToken(NamedTuple):
    """A registration token; ``expires_at`` is in Unix seconds."""

    version: VersionToken
    text: str
    expires_at: float


class Session(NamedTuple):
    """What a worker gets from `NvcfWorkers.connect`."""

    region: str
    other_regions: tuple[str, ...]
    token: ValidToken


class Assertion(NamedTuple):
    """A signed statement about a function version, and its end in Unix seconds."""

    token: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class NvcfTokens:
    """Checks the tokens of NVIDIA's workers, from this process's memory."""

    authenticate: Authenticate
    registrations: Registrations
    clock: Callable[[], float]

    def check(self, text: str) -> ValidToken:
        """Return what a token says. Raises `Unauthenticated`, and `Forbidden` if it is revoked."""
        if not (text.isascii() and text.isprintable()):
            raise Unauthenticated
        principal = self.authenticate(b"Bearer " + text.encode(), self.clock())
        version = registration_of(principal)
        if self.registrations.is_revoked(version.version_id, version.subject):
            raise Forbidden("The registration token was revoked")
        return ValidToken(version, text, float(read_unverified(text)[1]["exp"]))

    def check_for(self, text: str, function_id: str, version_id: str) -> ValidToken:
        """Check a token as `check`; raise `Forbidden` too if it is for another version."""
        token = self.check(text)
        if (function_id, version_id) != (token.version.function_id, token.version.version_id):
            raise Forbidden("The token is for another version")
        return token


@dataclass(frozen=True, slots=True)
class NvcfLogins:
    """Decides which tokens log in to NATS, for at most ``login_s`` seconds."""

    tokens: NvcfTokens
    catalog: Catalog
    login_s: float

    def check(self, text: str) -> WorkerLogin:
        """Return what a token admits to. A `queueing.interface.LoginCheck`."""
        try:
            token = self.tokens.check(text)
        except GatewayError as error:
            raise TokenRefused(str(error)) from error
        version_id = token.version.version_id
        deployment = self.catalog.deployment(version_id)
        if deployment is None or deployment.account != token.version.account:
            raise TokenRefused("the version is not deployed")
        ends_at = min(token.expires_at, self.tokens.clock() + self.login_s)
        name = f"NVCF worker with token {token.version.subject}"
        return WorkerLogin(version_id, deployment.deployment_id, name, ends_at)


class NvcfWorkers:
    """The calls by which workers register. All raise `GatewayError` and `QueueError`."""

    def __init__(
        self, api: Api, workers: Workers, tokens: NvcfTokens, signer: TokenSigner, token_s: float
    ) -> None:
        """``token_s`` is the life of assertions in seconds."""
        self._api = api
        self._workers = workers
        self._tokens = tokens
        self._signer = signer
        self._token_s = token_s

    async def connect(self, text: str, ids: tuple[str, str, str]) -> Session:
        """Register the worker, or renew its lease. ``ids``: instance, function and version.

        Raises `Conflict` while the version has no place for it, and `Forbidden` for a worker that
        is to stop.
        """
        instance, *version = ids
        token = self._tokens.check_for(text, version[0], version[1])
        if not instance or len(instance) > _MAX_NAME_CHARS:
            raise BadRequest("instanceId must have 1 to 256 characters")
        own = WorkerIdentity(*token.version[:3], instance_id_of(version[1], instance))
        body = ConnectBody.model_validate(
            {
                "instanceId": own.instance_id,
                "functionId": own.function_id,
                "functionVersionId": own.version_id,
                "worker": {"pod": instance},
            }
        )
        as_worker: Call[ConnectBody, None] = Call(worker_principal(own), {}, None, body)
        if self._is_anothers(own, token):
            await self._register(text, body)
        try:
            found = await self._workers.connect(self._api, as_worker)
        except NotFound:
            await self._register(text, body)
            found = await self._workers.connect(self._api, as_worker)
        if found.stop:
            raise Forbidden(found.stop)
        return Session(found.region, self._api.other_regions, token)

    async def _register(self, text: str, body: ConnectBody) -> None:
        """Make the worker an instance, unless another one is it and has a lease."""
        principal = self._api.authenticate(b"Bearer " + text.encode(), self._tokens.clock())
        await self._workers.connect(self._api, Call(principal, {}, None, body))

    def _is_anothers(self, own: WorkerIdentity, token: ValidToken) -> bool:
        """Whether the instance's record is that of a worker which this token did not register."""
        return any(
            one.instance_id == own.instance_id and one.registered_with != token.version.subject
            for one in self._api.catalog.instances(own.version_id)
        )

    async def provision(self, text: str, ids: tuple[str, str, str], region: str) -> None:
        """Create the queues of the version; ``region`` must be one of this installation."""
        _, function_id, version_id = ids
        self._tokens.check_for(text, function_id, version_id)
        if region not in (self._api.region, *self._api.other_regions):
            raise BadRequest("regionToProvision must be a region of this gateway")
        await self._workers.ensure_queue(version_id)

    def assertion(self, text: str, function_id: str, version_id: str, audience: str) -> Assertion:
        """Return a statement about the version for ``audience``, signed by the gateway."""
        token = self._tokens.check_for(text, function_id, version_id)
        now = self._tokens.clock()
        ends_at = min(now + self._token_s, token.expires_at)
        claims = {
            "aud": audience,
            "sub": version_id,
            "nca_id": token.version.account,
            "functionId": function_id,
            "functionVersionId": version_id,
            "iat": int(now),
            "exp": int(ends_at),
        }
        return Assertion(self._signer.sign(claims), ends_at)


def instance_id_of(version_id: str, name: str) -> str:
    """Return the id of the instance that a worker of the version calls ``name``."""
    return parse_uuid(name.encode()) or str(uuid5(UUID(version_id), name))
