"""Settings of the worker agent that follow from a version, as its environment variables.

They are those of ``config/worker.toml``. `docs/wire.md` §10.1 has the members of a version.
"""

from collections.abc import Mapping

from gateway.domain.grpc import is_grpc

DEFAULT_PORT = 8000


def agent_settings(spec: Mapping[str, object]) -> dict[str, str]:
    """Return the settings of a version, whose ``spec`` is in the form of the API.

    Without the port of the inference server, which is another one where instances share a machine.
    """
    health = spec.get("health")
    health_settings = (
        _health_settings(health, _number(spec, "inferencePort"))
        if isinstance(health, Mapping)
        else {}
    )
    return {
        "WORKER_FUNCTION__NAME": _text(spec, "name"),
        "WORKER_INFERENCE__PROTOCOL": "grpc" if is_grpc(spec.get("inferenceUrl")) else "http",
        **health_settings,
    }


def port_settings(spec: Mapping[str, object]) -> dict[str, str]:
    """Return the setting for the port that the inference server of a version declares."""
    return {"WORKER_INFERENCE__PORT": str(_number(spec, "inferencePort") or DEFAULT_PORT)}


def _health_settings(health: Mapping[str, object], declared_port: int) -> dict[str, str]:
    """Return the worker's health settings.

    A port that equals ``declared_port`` means the inference server's, wherever that listens.
    """
    found = {}
    if protocol := _text(health, "protocol"):
        found["WORKER_HEALTH__PROTOCOL"] = protocol.lower()
    if uri := _text(health, "uri"):
        found["WORKER_HEALTH__PATH"] = uri if uri.startswith("/") else f"/{uri}"
    if timeout := _text(health, "timeout"):
        found["WORKER_HEALTH__TIMEOUT_S"] = timeout
    if status := _number(health, "expectedStatusCode"):
        found["WORKER_HEALTH__EXPECTED_STATUS"] = str(status)
    port = _number(health, "port")
    if port and port != (declared_port or DEFAULT_PORT):
        found["WORKER_HEALTH__PORT"] = str(port)
    return found


def _text(members: Mapping[str, object], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _number(members: Mapping[str, object], name: str) -> int:
    value = members.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
