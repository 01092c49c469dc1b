"""The API's models and the agent's documents have the same members."""

from typing import Any

import pytest
from pydantic import BaseModel

from gateway.api.schemas.workers import (
    ConnectBody,
    ConnectResponse,
    HeartbeatBody,
    HeartbeatResponse,
)
from wire import worker_api


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (ConnectBody, worker_api.ConnectRequest),
        (ConnectResponse, worker_api.ConnectResponse),
        (HeartbeatBody, worker_api.HeartbeatRequest),
        (HeartbeatResponse, worker_api.HeartbeatResponse),
    ],
)
def test_a_document_has_the_members_of_its_model(model: type[BaseModel], document: Any) -> None:
    fields = model.model_fields.values()
    assert {field.alias for field in fields} == set(document.__annotations__)
    required = {field.alias for field in fields if field.is_required()}
    assert required == document.__required_keys__


def test_credentials_are_members_of_the_response_and_not_shown() -> None:
    response = ConnectResponse.model_validate(
        {
            "nats": {"seed": "sesame"},
            "region": "local",
            "token": "open",
            "expires_in_seconds": 1.0,
            "lease_seconds": 1.0,
        }
    )
    document = response.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert document["nats"] == {"seed": "sesame"}
    assert set(document) == {"nats", "region", "token", "expiresInSeconds", "leaseSeconds"}
    assert "sesame" not in repr(response)
    assert "open" not in repr(response)
