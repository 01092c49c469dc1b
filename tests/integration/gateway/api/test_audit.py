"""The audit lines of changes that are made through the REST API."""

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.api.audit import EVENT
from tests.support.control import IMAGE, Client, deployment_path, version_path


def fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of the lines since the last call."""
    found = [vars(r)["fields"] for r in caplog.records if r.getMessage() == EVENT]
    caplog.clear()
    return found


async def test_a_change_is_logged_with_who_made_it_and_what_it_made(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    made = await client.post("/v2/nvcf/functions", IMAGE)
    function = made.body["function"]
    (line,) = fields(caplog)
    assert line["operation"] == "functions.create"
    assert (line["outcome"], line["status"], line["reason"]) == ("done", 200, "")
    assert line["by_kind"] == "key"
    assert line["by_key_id"]
    assert line["account"] == line["by_account"] == function["ncaId"]
    assert line["function_id"] == function["id"]
    assert line["function_version_id"] == function["versionId"]
    assert line["request_id"] == made.headers["x-request-id"]
    assert (await client.get(version_path(function["id"], function["versionId"]))).status == 200
    assert fields(caplog) == []


async def test_a_change_that_is_refused_is_logged_with_the_reason(
    client: Client, other: Client, caplog: pytest.LogCaptureFixture
) -> None:
    function_id, version_id = await client.create()
    caplog.clear()
    assert (await other.delete(version_path(function_id, version_id))).status == 404
    (line,) = fields(caplog)
    assert (line["operation"], line["outcome"]) == ("functions.delete", "refused")
    assert (line["reason"], line["function_version_id"]) == ("not_found", version_id)
    assert (await client.post(deployment_path(function_id, version_id), {"no": 1})).status == 400
    (line,) = fields(caplog)
    assert (line["operation"], line["reason"]) == ("deployments.deploy", "bad_request")


async def test_a_call_without_a_valid_credential_writes_no_audit_line(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    stranger = replace(client, key="nvapi-x")
    assert (await stranger.post("/v2/nvcf/functions", IMAGE)).status == 401
    assert fields(caplog) == []


async def test_what_is_not_an_id_is_not_repeated_in_a_line(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    key = f"nvapi-{'x' * 49}"
    refused = await client.delete(f"/v2/nvcf/functions/{key}/versions/{key}")
    assert refused.status in {400, 404}
    assert "nvapi-" not in json.dumps(fields(caplog))
