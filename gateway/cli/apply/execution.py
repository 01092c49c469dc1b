"""Reads what there is, and carries a plan out over the API.

Functions are changed at the same time, each with its own steps in their order, so that models load
side by side. A function that fails does not stop the others. What only the set has is removed last,
and only if nothing failed: a function that was renamed goes when its successor serves.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.cli.api_client import ApiClient, Json
from gateway.cli.apply.planning import (
    ApplyPlan,
    ApplyStep,
    FoundVersion,
    FunctionPlan,
    Ref,
    StepKind,
    WantedFunction,
    is_alike,
)
from gateway.cli.errors import ApiError, CommandError
from gateway.cli.watch import wait_until_gone, wait_until_up

MAX_AT_ONCE = 16
"""Functions that are changed at the same time."""

_SKIPPED = "not removed, because another function failed"

Say = Callable[[str], None]


async def read_versions(api: ApiClient) -> list[FoundVersion]:
    """Return all versions of the account itself, oldest first, with their deployments."""
    listed = await api.versions("functions", None, visibility="private")
    deployments = (await api.get("deployments"))["deployments"]
    by_version = {deployment["functionVersionId"]: deployment for deployment in deployments}
    return [FoundVersion(view, by_version.get(view["versionId"])) for view in listed]


@dataclass(slots=True)
class FunctionResult:
    """What became of a function's plan: ``error`` is empty if all its steps were done."""

    plan: FunctionPlan
    ref: Ref | None = None
    error: str = ""


class Execution:
    """Carries one plan out. ``timeout_s`` is the longest that one step waits."""

    def __init__(self, api: ApiClient, timeout_s: float, say: Say) -> None:
        self._api = api
        self._timeout_s = timeout_s
        self._say = say
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self, plan: ApplyPlan) -> list[FunctionResult]:
        """Do all steps; return what became of them."""
        results = await self._run_all(plan.functions)
        if any(result.error for result in results):
            for each in plan.removals:
                self._say(f"{each.name}: {_SKIPPED}")
            return results + [FunctionResult(each, error=_SKIPPED) for each in plan.removals]
        return results + await self._run_all(plan.removals)

    async def _run_all(self, plans: Sequence[FunctionPlan]) -> list[FunctionResult]:
        return list(await asyncio.gather(*(self._run(plan) for plan in plans)))

    async def _run(self, plan: FunctionPlan) -> FunctionResult:
        result = FunctionResult(plan)
        async with self._places:
            try:
                for step in plan.steps:
                    await self._do(step, result)
            except CommandError as error:
                result.error = str(error)
                self._say(f"{plan.name}: {error}")
        return result

    async def _do(self, step: ApplyStep, result: FunctionResult) -> None:
        name = result.plan.name
        if step.kind in {StepKind.CREATE, StepKind.ADD}:
            result.ref = await self._create(step, result.plan)
            self._say(f"{name}: created version {result.ref.version_id}")
            return
        ref = step.ref or result.ref
        assert ref is not None
        if step.kind in {StepKind.AWAIT, StepKind.AWAIT_GONE}:
            await self._wait(step.kind, ref, name)
            return
        if step.kind is StepKind.UNDEPLOY:
            try:
                await self._api.call(
                    "DELETE", f"deployments/{ref.path}", query={"graceful": "true"}
                )
            except ApiError as error:
                if error.status != 404:  # It has ended by itself.
                    raise
        else:
            method, path = _CALLS[step.kind]
            await self._api.call(method, path.format(ref.path), step.body)
        self._say(f"{name}: {_DONE[step.kind]} version {ref.version_id}")

    async def _create(self, step: ApplyStep, plan: FunctionPlan) -> Ref:
        path = "functions" if step.ref is None else f"functions/{step.ref.function_id}/versions"
        created = FoundVersion((await self._api.call("POST", path, step.body))["function"])
        await self._check_kept(created, plan.wanted)
        return created.ref

    async def _check_kept(self, created: FoundVersion, wanted: WantedFunction | None) -> None:
        """Raise `CommandError` if the API has made something else: it would be so each time."""
        if wanted is not None and not is_alike(created, wanted):
            await self._api.call("DELETE", created.ref.path)
            raise CommandError(
                "the gateway does not keep all members of this function: it is of another version "
                "than this command"
            )

    async def _wait(self, kind: StepKind, ref: Ref, name: str) -> None:
        def say(line: str) -> None:
            self._say(f"{name}: {line}")

        wait = wait_until_up if kind is StepKind.AWAIT else wait_until_gone
        state = "ACTIVE" if kind is StepKind.AWAIT else "ended"
        try:
            async with asyncio.timeout(self._timeout_s):
                await wait(self._api, *ref, say)
        except TimeoutError:
            raise CommandError(
                f"version {ref.version_id} is not {state} after {self._timeout_s:.0f} s; the same "
                "command goes on from here"
            ) from None


_CALLS = {
    StepKind.UPDATE: ("PUT", "{}"),
    StepKind.DEPLOY: ("POST", "deployments/{}"),
    StepKind.SCALE: ("PUT", "deployments/{}"),
    StepKind.DELETE: ("DELETE", "{}"),
}
_DONE = {
    StepKind.UPDATE: "updated",
    StepKind.DEPLOY: "deploying",
    StepKind.SCALE: "scaled",
    StepKind.UNDEPLOY: "undeploying",
    StepKind.DELETE: "deleted",
}


def result_document(result: FunctionResult) -> Json:
    """Return a result for ``--json``."""
    document: Json = {"function": result.plan.name, "status": _status(result)}
    if result.error:
        document["error"] = result.error
    document["steps"] = [_step_document(step, result.ref) for step in result.plan.steps]
    return document


def _status(result: FunctionResult) -> str:
    if result.error:
        return "failed"
    return "changed" if result.plan.changes_anything else "unchanged"


def _step_document(step: ApplyStep, created: Ref | None) -> Json:
    ref = created if step.ref is None or not step.ref.version_id else step.ref
    document: Json = {"step": step.kind.name}
    if ref is not None:
        document |= {"functionId": ref.function_id, "versionId": ref.version_id}
    if step.changes:
        document["changes"] = [change._asdict() for change in step.changes]
    return document
