"""The worker agent's settings, and the file that documents them."""

import json
import re
import tomllib
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from runtime.settings import SettingsError, keys, load
from wire.worker_api import REGISTRATION_AUDIENCE
from worker_agent.settings import ENV_PREFIX, NVCF_ALIASES, WorkerSettings

FILE = Path(__file__).parents[3] / "config" / "worker.toml"
UUID = "01234567-89ab-4def-8123-456789abcdef"
IDS = {"FUNCTION_ID": UUID, "FUNCTION_VERSION_ID": UUID.upper()}


def loaded(file: Path | None, **environ: str) -> WorkerSettings:
    return load(WorkerSettings, file, ENV_PREFIX, environ={**IDS, **environ}, aliases=NVCF_ALIASES)


def test_the_file_holds_every_setting_at_its_default() -> None:
    assert loaded(FILE) == loaded(None)
    text = re.sub(r"^# (\w+ = )", r"\1", FILE.read_text(), flags=re.MULTILINE)
    named = {
        f"{section}.{key}" for section, values in tomllib.loads(text).items() for key in values
    }
    assert named == set(keys(WorkerSettings))


def test_every_name_of_nvcf_is_in_the_file_and_means_a_setting() -> None:
    text = FILE.read_text()
    for name, setting in NVCF_ALIASES.items():
        assert re.search(rf"\b{name}\b", text), name
        assert setting in keys(WorkerSettings)


def test_nvcfs_names_are_understood_in_nvcfs_forms() -> None:
    settings = loaded(
        None,
        INFERENCE_PORT="9000",
        INFERENCE_HEALTH_TIMEOUT="PT10S",
        INFERENCE_HEALTH_PROTOCOL="gRPC",
        NVCF_FQDN_NATS="nats://a:1",
        SPOT_ENVIRONMENT="old",
        LOG_LEVEL="INFO",
        HEALTH_PORT="",
    )
    assert settings.inference.port == 9000
    assert settings.health.timeout_s == 10.0
    assert settings.health.protocol == "grpc"
    assert settings.inference.protocol == "http"
    assert settings.nats.urls == ("nats://a:1",)
    assert settings.instance.environment == "old"
    assert settings.log.level == "info"
    assert settings.admin.port is None
    assert settings.function.version_id == UUID


def test_our_own_name_wins() -> None:
    settings = loaded(None, INFERENCE_PORT="9000", WORKER_INFERENCE__PORT="9001")
    assert settings.inference.port == 9001


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MAX_REQUEST_CONCURRENCY": "0"}, "inference.max_concurrency"),
        ({"INFERENCE_PORT": "x"}, "inference.port"),
        ({"INFERENCE_HEALTH_PROTOCOL": "tcp"}, "health.protocol"),
        ({"ZONE_NAME": "a\nb"}, "instance.zone"),
        ({"FUNCTION_ID": ""}, "function.id: must be set"),
        (
            {"FUNCTION_ID": "", "WORKER_CONTROL__URL": "http://a", "WORKER_CONTROL__TOKEN": "a.b"},
            "control.token: must be a registration token",
        ),
        ({"WORKER_QUEUE__OTHER_REGIONS": "local"}, "queue.other_regions: must name"),
    ],
)
def test_a_bad_value_is_refused_by_name(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        loaded(None, **environ)


def test_a_token_may_come_with_the_line_end_of_its_file() -> None:
    claims = urlsafe_b64encode(json.dumps({"aud": REGISTRATION_AUDIENCE}).encode()).decode()
    token = f"e30.{claims}.c2ln"
    environ = {"WORKER_CONTROL__URL": "http://a", "WORKER_CONTROL__TOKEN": f"{token}\n"}
    settings = load(WorkerSettings, None, ENV_PREFIX, environ=environ, aliases=NVCF_ALIASES)
    assert settings.registration_token == token
