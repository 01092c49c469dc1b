"""The agent before it is an instance: it registers with a token (`docs/wire.md` §19.1).

It waits as long as the version has no place for it, serves its liveness meanwhile, and gets the ids
and settings that it cannot know.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import NamedTuple

from runtime.events import emit
from runtime.lifecycle import Lifecycle
from runtime.metrics import MetricRegistry
from runtime.tasks import spawn
from wire import worker_api
from worker_agent.app.admin import Admin
from worker_agent.registration import ConnectError, HttpApi, register_until_done
from worker_agent.settings import WorkerSettings

EXIT_REFUSED = 1
GONE = 410

_log = logging.getLogger("worker.connect")


class Joined(NamedTuple):
    """What the registration gave; both as environment variables of the agent.

    ``decided`` overrides every setting of the agent, ``defaults`` none.
    """

    decided: Mapping[str, str]
    defaults: Mapping[str, str]


async def join(
    settings: WorkerSettings, facts: Mapping[str, object], lifecycle: Lifecycle
) -> Joined | int:
    """Register as an instance, without a limit of time.

    Returns the exit code instead if the platform refuses the worker, and after the stop signal.
    """
    control, reasons = settings.control, {"control": "not registered"}
    admin = Admin(MetricRegistry(), lambda: reasons)
    await admin.listen(settings.admin_address)
    try:
        api = HttpApi(control.url, control.timeout_s)
    except ConnectError as error:
        emit(_log, "control.refused", logging.ERROR, reason=str(error))
        return EXIT_REFUSED
    request: worker_api.ConnectRequest = {"worker": facts}
    if settings.function.version_id:
        request["functionVersionId"] = settings.function.version_id

    async def register() -> Mapping[str, object] | ConnectError:
        try:
            return await register_until_done(
                api, settings.registration_token, request, lambda why: reasons.update(control=why)
            )
        except ConnectError as error:  # Not a failure of the task.
            return error

    registering = spawn(register(), "worker.register")
    stopping = spawn(lifecycle.stopping.wait(), "worker.stopping")
    try:
        await asyncio.wait({registering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not registering.done():
            return 0
        found = registering.result()
        if isinstance(found, ConnectError):
            raise found
        return _read(found)
    except ConnectError as error:
        if error.status == GONE:
            emit(_log, "worker.told_to_stop", reason=str(error))
            return 0
        emit(_log, "control.refused", logging.ERROR, reason=str(error))
        return EXIT_REFUSED
    finally:
        registering.cancel()
        stopping.cancel()
        api.close()
        admin.close()


def _read(document: Mapping[str, object]) -> Joined:
    """Return what a registration gave. Raises `ConnectError` for what cannot be used."""
    found = {
        "WORKER_FUNCTION__ID": document.get("functionId"),
        "WORKER_FUNCTION__VERSION_ID": document.get("functionVersionId"),
        "WORKER_INSTANCE__ID": document.get("instanceId"),
        "WORKER_CONTROL__TOKEN": document.get("token"),
    }
    decided = {name: value for name, value in found.items() if isinstance(value, str)}
    environment = document.get("environment")
    if len(decided) < len(found) or not isinstance(environment, Mapping):
        raise ConnectError("the response to the registration cannot be used")
    emit(
        _log,
        "worker.registered",
        instance_id=decided["WORKER_INSTANCE__ID"],
        version_id=decided["WORKER_FUNCTION__VERSION_ID"],
    )
    return Joined(
        decided, {name: value for name, value in environment.items() if isinstance(value, str)}
    )
