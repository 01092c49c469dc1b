"""Follows all objects of one kind: one list, then watches, each from where the last one ended.

The list is made again when a version is too old (an ERROR event with code 410, also after a restart
of the API server), after every error, and from time to time: a watch from a version that the server
does not have yet, as after a restored etcd, shows nothing and is no error. Every round that ends at
once is followed by a pause.
"""

import asyncio
import random
import time
from collections.abc import Callable

from gateway.provision.kubernetes.client import (
    UNAUTHORIZED,
    KubernetesApi,
    KubernetesError,
    ObjectKind,
)
from gateway.provision.kubernetes.manifests import Manifest

ROUND_S = 240
"""Length of one watch."""
LIST_AGAIN_S = 600.0
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_EXPIRED = 410


class ObjectFollower:
    """``objects`` are the objects by name, from the first list on; then ``is_loaded``."""

    def __init__(
        self,
        api: KubernetesApi,
        kind: ObjectKind,
        selector: str,
        on_change: Callable[[Manifest], None],
        on_result: Callable[[KubernetesError | None], None],
    ) -> None:
        """``on_change`` gets each object that is new, changed or gone.

        ``on_result`` gets the error of each attempt to list or to watch, `None` for a success.
        """
        self._api = api
        self._kind = kind
        self._selector = selector
        self._on_change = on_change
        self._on_result = on_result
        self.objects: dict[str, Manifest] = {}
        self.is_loaded = False

    async def run(self) -> None:
        """Follow until cancelled."""
        pause_s = _PAUSE_S
        while True:
            login = self._api.logins
            try:
                version = await self._list()
                self._on_result(None)
                pause_s = _PAUSE_S
                await self._watch(version)
                continue
            except KubernetesError as error:
                self._on_result(error)
                is_refused = error.status == UNAUTHORIZED
            # At random, so that processes do not come back together.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if is_refused:
                await self._log_in_again(login)

    async def _log_in_again(self, login: int) -> None:
        try:
            await self._api.log_in_again(login)
        except KubernetesError as error:
            self._on_result(error)

    async def _list(self) -> str:
        found, version = await self._api.list(self._kind, self._selector)
        before = self.objects
        self.objects = {one["metadata"]["name"]: one for one in found}
        self.is_loaded = True
        for name, one in (before | self.objects).items():
            if before.get(name) != self.objects.get(name):
                self._on_change(one)
        return version

    async def _watch(self, version: str) -> None:
        """Watch until the version is too old, or it is time for another list."""
        list_again_at = time.monotonic() + LIST_AGAIN_S
        while (began := time.monotonic()) < list_again_at:
            changes = self._api.watch(self._kind, self._selector, version, ROUND_S)
            try:
                async for event, one in changes:
                    version = one["metadata"]["resourceVersion"]
                    self._take(event, one)
            except KubernetesError as error:
                if error.status != _EXPIRED:
                    raise
                list_again_at = 0.0
            if time.monotonic() - began < _PAUSE_S:
                await asyncio.sleep(_PAUSE_S)

    def _take(self, event: str, one: Manifest) -> None:
        """Take one event. ``DELETED`` also tells that the labels do not match any more."""
        name = one["metadata"].get("name", "")
        if event in {"ADDED", "MODIFIED"}:
            self.objects[name] = one
        elif event == "DELETED":
            self.objects.pop(name, None)
        else:
            return
        self._on_change(one)
