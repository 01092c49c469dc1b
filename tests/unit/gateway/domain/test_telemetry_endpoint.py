"""What an OpenTelemetry SDK gets to know of an endpoint, and which endpoints are refused."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.documents import Document
from gateway.domain.telemetry_endpoint import (
    TelemetryEndpoint,
    check_endpoint,
    check_version,
    credentials_in,
    exporter_environment,
)
from gateway.errors import BadRequest, NotFound

ID = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
OTHER_ID = "11111111-2222-4333-8444-555555555555"


def endpoint(**changes: Any) -> TelemetryEndpoint:
    collector = TelemetryEndpoint(
        endpoint_id=ID,
        name="collector",
        url="https://otel.example:4318/base/",
        protocol="HTTP",
        provider="OTEL_COLLECTOR",
        types=("LOGS", "TRACES"),
        created_at="",
        secret="t0ken, with=+ all%",
    )
    return replace(collector, **changes)


def test_an_sdk_gets_the_whole_url_and_a_header_that_it_can_decode() -> None:
    assert exporter_environment(
        {"telemetries": {"tracesTelemetryId": ID.upper()}}, [endpoint()]
    ) == {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://otel.example:4318/base/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": (
            "authorization=Bearer%20t0ken%2C%20with%3D%2B%20all%25"
        ),
    }


@pytest.mark.parametrize(
    ("changes", "url", "headers"),
    [
        (
            {"provider": "SERVICENOW", "url": "ingest.example:443", "types": ("TRACES",)},
            "https://ingest.example:443",
            "lightstep-access-token=t0ken%2C%20with%3D%2B%20all%25",
        ),
        ({"url": "http://near:4317"}, "http://near:4317", None),
    ],
)
def test_grpc_has_a_server_and_no_path(
    changes: dict[str, Any], url: str, headers: str | None
) -> None:
    over_grpc = endpoint(protocol="GRPC", **changes)
    check_endpoint(over_grpc)
    found = over_grpc.variables("TRACES")
    assert found["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == url
    assert found["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "grpc"
    if headers is not None:
        assert found["OTEL_EXPORTER_OTLP_TRACES_HEADERS"] == headers


def test_grafana_cloud_gets_a_basic_credential() -> None:
    grafana = endpoint(provider="GRAFANA_CLOUD", secret={"instanceId": "12", "apiKey": "glc_x"})
    check_endpoint(grafana)
    assert grafana.header() == ("authorization", "Basic MTI6Z2xjX3g=")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"provider": "DATADOG"}, "DATADOG is not supported"),
        ({"provider": "GRAFANA_CLOUD"}, "instanceId, apiKey"),
        (
            {
                "provider": "GRAFANA_CLOUD",
                "protocol": "GRPC",
                "secret": {"instanceId": "1", "apiKey": "2"},
            },
            "by HTTP only",
        ),
        ({"provider": "SERVICENOW"}, "TRACES only"),
        ({"url": "otel.example:4318"}, "it is a URL"),
        ({"protocol": "GRPC"}, "no path"),
        ({"secret": {"a": "b"}}, "is a text"),
        ({"secret": "line\nbreak"}, "printable"),
    ],
)
def test_an_endpoint_to_which_nothing_could_send_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        check_endpoint(endpoint(**changes))


@pytest.mark.parametrize(
    ("named", "variables", "words"),
    [
        ({"tracesTelemetryId": OTHER_ID}, [], "tracesTelemetryId: the account has no such"),
        ({"metricsTelemetryId": ID}, [], "does not take METRICS"),
        ({"logsTelemetryId": ID}, ["OTEL_EXPORTER_OTLP_LOGS_HEADERS"], "containerEnvironment"),
    ],
)
def test_a_version_names_only_what_its_account_has(
    named: dict[str, str], variables: list[str], words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        check_version({"telemetries": named}, [endpoint()], variables)
    check_version({"telemetries": {"logsTelemetryId": ID}}, [endpoint()], ["OTEL_SERVICE_NAME"])


def test_an_endpoint_that_is_gone_is_no_reason_to_send_nowhere() -> None:
    with pytest.raises(NotFound):
        exporter_environment({"telemetries": {"logsTelemetryId": ID}}, [])


def test_the_credential_is_found_in_the_variables_as_sent_and_as_written() -> None:
    assert credentials_in(endpoint(secret="a+b").variables("LOGS")) == [
        "Bearer%20a%2Bb",
        "Bearer a+b",
        "a+b",
    ]
    two_words = endpoint(secret="open sesame")
    assert "open sesame" in credentials_in(two_words.variables("LOGS"))
    two_words = endpoint(secret="open sesame", provider="SERVICENOW", types=("TRACES",))
    assert "open sesame" in credentials_in(two_words.variables("TRACES"))


def test_an_endpoint_is_read_back_and_does_not_show_its_secret() -> None:
    assert TelemetryEndpoint.read(Document(endpoint().document())) == endpoint()
    assert "t0ken" not in repr(endpoint())
