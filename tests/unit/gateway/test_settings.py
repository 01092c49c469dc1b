"""Validation of the gateway's settings."""

from pathlib import Path

import pytest

from gateway.settings import ENV_PREFIX, GatewaySettings, read_settings
from runtime.settings import SettingsError, load


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(GatewaySettings, None, ENV_PREFIX, environ=environ)
    return refused.value.problems


@pytest.mark.parametrize("url", ["http://me:secret@a", "nats://me:secret@a:99999", "nats://"])
def test_a_nats_url_that_is_none_is_named_and_not_shown(url: str) -> None:
    (problem,) = problems(GATEWAY_NATS__URLS=f"nats://127.0.0.1:4222,{url}")
    assert problem.startswith("nats.urls.1: not a NATS server")
    assert "secret" not in problem


@pytest.mark.parametrize("host", ["10.0.0.1:8090", "gateway:8090", "[::1]", "http://gateway"])
def test_an_advertised_host_has_no_port(host: str) -> None:
    (problem,) = problems(GATEWAY_ATTACH__ADVERTISE=host)
    assert problem.startswith("attach.advertise: ")


@pytest.mark.parametrize("host", ["", "10.0.0.1", "pod-1.gateway.svc", "::1", "2001:db8::7"])
def test_an_advertised_host_is_a_name_or_an_address(host: str) -> None:
    environ = {"GATEWAY_ATTACH__ADVERTISE": host}
    assert load(GatewaySettings, None, ENV_PREFIX, environ=environ).attach.advertise == host


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    (problem,) = problems(GATEWAY_NATS__CA_FILE=str(tmp_path / "ca.pem"))
    assert problem.startswith("nats.ca_file: ")


def test_an_issuer_without_what_its_tokens_are_checked_with_is_refused() -> None:
    found = problems(GATEWAY_JWT__ISSUER="https://issuer.example")
    assert [problem.partition(":")[0] for problem in found] == ["jwt.audiences", "jwt.jwks_url"]
    (problem,) = problems(
        GATEWAY_JWT__ISSUER="https://issuer.example", GATEWAY_JWT__JWKS_URL="https://a/keys"
    )
    assert problem.startswith("jwt.audiences: must be set")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "nats.region_tag: must be set"),
        ({"NATS__REGION_TAG": "region", "QUEUE__REGION": "us"}, "queue.other_regions: must name"),
        ({"NATS__REGION_TAG": "region", "QUEUE__BACKEND": "redis"}, "queue.other_regions: need"),
        ({"NATS__REGION_TAG": "a:b"}, "nats.region_tag: String should consist"),
    ],
)
def test_regions_that_cannot_be_served_are_refused(settings: dict[str, str], problem: str) -> None:
    environ = {f"GATEWAY_{name}": text for name, text in settings.items()}
    (found,) = problems(GATEWAY_QUEUE__OTHER_REGIONS="us,ap", **environ)
    assert found.startswith(problem)


def test_several_regions_are_taken() -> None:
    environ = {"GATEWAY_QUEUE__OTHER_REGIONS": "us,ap", "GATEWAY_NATS__REGION_TAG": "region"}
    queue = load(GatewaySettings, None, ENV_PREFIX, environ=environ).queue
    assert (queue.region, queue.other_regions) == ("local", ("us", "ap"))


def test_a_bootstrap_secret_is_given_once() -> None:
    (problem,) = problems(
        GATEWAY_CONTROL__BOOTSTRAP_SECRET="nvboot-hunter2",
        GATEWAY_CONTROL__BOOTSTRAP_SECRET_FILE="/run/secrets/bootstrap",
    )
    assert problem.startswith("control.bootstrap_secret_file: cannot be set together")


def test_an_issuer_with_both_and_none_at_all_are_taken() -> None:
    environ = {
        "GATEWAY_JWT__ISSUER": "https://issuer.example",
        "GATEWAY_JWT__AUDIENCES": "gateway",
        "GATEWAY_JWT__JWKS_URL": "https://issuer.example/keys",
    }
    assert load(GatewaySettings, None, ENV_PREFIX, environ=environ).jwt.audiences == ("gateway",)
    assert load(GatewaySettings, None, ENV_PREFIX, environ={}).jwt.issuer == ""


def test_where_the_api_is_for_commands_is_no_setting_and_refused_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_API_KEY", "nvapi-secret")
    monkeypatch.setenv("GATEWAY_QUEUE__REGION", "moon")
    assert read_settings(None).queue.region == "moon"
