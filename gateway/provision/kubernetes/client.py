"""Calls of the Kubernetes API that the backend needs, with documents as they are on the wire.

Login, TLS and kubeconfig are kubernetes_asyncio's; its models and its ``Watch``, which ignores the
status of the response and asks again with a version that is too old, are not used. Every call
raises `KubernetesError`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config.config_exception import ConfigException

from gateway.provision.kubernetes.manifests import Manifest

FIELD_MANAGER = "invocation-gateway"
CALL_S = 15.0
"""Bound of one call that is no watch."""
CONNECT_S = 5.0
PAGE = 500
"""Objects per page of a list."""
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_AUTH = ["BearerToken"]
UNAUTHORIZED = 401
"""There is no login, or it has expired: see `KubernetesApi.log_in_again`."""
_PASSING = frozenset({UNAUTHORIZED, 408, 409, 429, 502, 503, 504})
_FAILURES = (
    aiohttp.ClientError,
    OSError,
    ValueError,
    TimeoutError,
    # The file of the pod's token cannot be read now.
    ConfigException,
    # The client was closed by a login meanwhile.
    RuntimeError,
)
_MAX_SHOWN = 500


class KubernetesError(Exception):
    """Kubernetes refused a call, or cannot be reached; then ``status`` is 0.

    ``is_permanent``: the same call gets the same answer.
    """

    def __init__(self, message: str, status: int = 0, *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_permanent = is_permanent


class ClusterLogin(NamedTuple):
    """How to reach a cluster: a kubeconfig and its context, or the pod's own service account."""

    kubeconfig: Path | None = None
    context: str = ""
    namespace: str = "default"


class ObjectKind(NamedTuple):
    """A kind of objects: the path of its group and version, and its plural."""

    group: str
    plural: str


DEPLOYMENTS = ObjectKind("/apis/apps/v1", "deployments")
PODS = ObjectKind("/api/v1", "pods")
SECRETS = ObjectKind("/api/v1", "secrets")
BUDGETS = ObjectKind("/apis/policy/v1", "poddisruptionbudgets")
KINDS = {"Deployment": DEPLOYMENTS, "Secret": SECRETS, "PodDisruptionBudget": BUDGETS}


class KubernetesApi:
    """The API of one namespace. Call `open` first and `close` last."""

    def __init__(self, login: ClusterLogin) -> None:
        self._login = login
        self._client: ApiClient | None = None
        self._logging_in = asyncio.Lock()
        self.logins = 0
        """How often the login was read."""

    async def log_in_again(self, login: int) -> None:
        """Read the login again, unless that was done after it was the ``login``-th.

        Raises `KubernetesError`; then there is none.
        """
        async with self._logging_in:
            if self.logins == login:
                await self.open()

    async def open(self) -> None:
        """Read the login, again if it is open. Raises `KubernetesError` if it is unusable."""
        await self.close()
        login, settings = self._login, Configuration()
        try:
            if login.kubeconfig is None:
                config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
            else:
                await config.load_kube_config(
                    config_file=str(login.kubeconfig),
                    context=login.context or None,
                    client_configuration=settings,
                    persist_config=False,
                )
            self._client = ApiClient(settings)
            self.logins += 1
        except (ConfigException, OSError, ValueError) as error:
            raise KubernetesError(f"no login for Kubernetes: {error}", is_permanent=True) from error

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create or change an object by server-side apply, and return it."""
        path = self._path(KINDS[manifest["kind"]], manifest["metadata"]["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, query, manifest, _APPLY)

    async def merge(self, kind: ObjectKind, name: str, change: Manifest) -> Manifest:
        """Change members of an object that exists (RFC 7396), and return it."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", self._path(kind, name), query, change, _MERGE)

    async def delete(self, kind: ObjectKind, name: str, grace_s: int | None = None) -> None:
        """Delete an object, and let the garbage collector delete what it owns.

        It is no error if there is none. ``grace_s`` replaces a pod's grace period. Raises
        `KubernetesError`.
        """
        options: Manifest = {"propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._call("DELETE", self._path(kind, name), {}, options)
        except KubernetesError as error:
            if error.status != 404:
                raise

    async def list(self, kind: ObjectKind, selector: str) -> tuple[list[Manifest], str]:
        """Return all objects with these labels, and the version to watch from.

        Raises `KubernetesError`.
        """
        found: list[Manifest] = []
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            page = await self._call("GET", self._path(kind), query)
            found += page.get("items") or []
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion", ""))
            query["continue"] = meta["continue"]

    async def watch(
        self, kind: ObjectKind, selector: str, version: str, timeout_s: int
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield the type and the object of each change since ``version``, for ``timeout_s``.

        An ERROR, such as a version that is too old, is raised as `KubernetesError`.
        """
        query = {
            "labelSelector": selector,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_s),
        }
        timeout = aiohttp.ClientTimeout(
            total=timeout_s + CALL_S, connect=CONNECT_S, sock_connect=CONNECT_S
        )
        try:
            response = await self._send("GET", self._path(kind), query, timeout=timeout)
            async with response:
                if response.status != 200:
                    raise _refusal(response.status, await response.read())
                async for line in response.content:
                    event = json.loads(line)
                    if event.get("type") == "ERROR":
                        status = event.get("object") or {}
                        raise _refusal(int(status.get("code", 0)), json.dumps(status).encode())
                    yield event["type"], event["object"]
        except (*_FAILURES, KeyError) as error:
            raise KubernetesError(f"Kubernetes cannot be reached: {_text(error)}") from error

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=CALL_S, connect=CONNECT_S, sock_connect=CONNECT_S)
        try:
            response = await self._send(method, path, query, body, content_type, timeout=timeout)
            async with response:
                status, content = response.status, await response.read()
            if not 200 <= status <= 299:
                raise _refusal(status, content)
            document: Manifest = json.loads(content)
        except _FAILURES as error:
            raise KubernetesError(f"Kubernetes cannot be reached: {_text(error)}") from error
        return document

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Manifest | None = None,
        content_type: str = "application/json",
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> aiohttp.ClientResponse:
        if self._client is None:
            raise KubernetesError("not logged in to Kubernetes", UNAUTHORIZED)
        response: aiohttp.ClientResponse = await self._client.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=_AUTH,
            _preload_content=False,
            _request_timeout=timeout,
        )
        return response

    def _path(self, kind: ObjectKind, name: str = "") -> str:
        path = f"{kind.group}/namespaces/{self._login.namespace}/{kind.plural}"
        return f"{path}/{name}" if name else path


def _refusal(status: int, content: bytes) -> KubernetesError:
    """Return the error for a response. A 500 without a reason is about the object: permanent."""
    try:
        document = json.loads(content)
        message, reason = str(document["message"]), document.get("reason", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, reason = content[:_MAX_SHOWN].decode(errors="replace"), "?"
    is_permanent = (400 <= status < 500 and status not in _PASSING and status != 410) or (
        status == 500 and not reason
    )
    return KubernetesError(
        f"Kubernetes refused it ({status}): {message[:_MAX_SHOWN]}",
        status,
        is_permanent=is_permanent,
    )


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
