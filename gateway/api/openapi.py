"""The OpenAPI 3.1 document, made only from the routes and their models."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from gateway.api.route import AnyRoute
from gateway.api.schemas.fields import View
from gateway.auth.scopes import BOOTSTRAP

_REF = "#/components/schemas/{model}"
_VARIABLE = re.compile(r"\{(\w+)\}")
_UUID = {"type": "string", "format": "uuid"}
_OTHER_VARIABLES = {
    "ncaId": {"type": "string", "pattern": r"^[\x21-\x7e]{1,128}$"},
    "clientId": {"type": "string", "minLength": 1},
}

ADMIN_TAG = "admin"
"""The tag of admin routes."""
_FOR_ADMINS = (
    "Operations of super administrators in the account that the path names. They need a JWT with "
    "scopes that begin with `admin:`. Nearly all of them also exist without the account in the "
    "path, for the account's own callers."
)

Mode = Literal["validation", "serialization"]
Schema = dict[str, Any]


class ErrorView(View):
    """The error once more, as OpenAI's API describes errors."""

    message: str
    type: str
    code: str


class Problem(View):
    """An error (RFC 9457)."""

    type: str = Field(pattern="^urn:nvcf:problem-details:[a-z0-9-]+$")
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    reason: str | None = None
    function_status: str | None = None
    """The state of the version, if it is the reason."""
    message: str
    """The same as `detail`."""
    error: ErrorView


_ERRORS = {
    400: "The request is not valid, or not possible in the current state",
    401: "The credential is missing or not valid",
    403: "The credential does not permit the call",
    404: "Not found, or owned by another account",
    409: "It exists already, or was changed at the same time",
    413: "The body is too large",
    415: "The body is not application/json, or its content coding is not supported",
    429: "Too many calls",
    500: "The gateway failed",
    503: "The store or the queue cannot be reached",
}
_FOR_BODIES = frozenset({413, 415})
_FOR_CHANGES = frozenset({409})


def document(routes: Sequence[AnyRoute], version: str = "2") -> Schema:
    """Return the document, which can be serialised as JSON."""
    schemas, components = _schemas(routes)
    paths: dict[str, Schema] = {}
    tags = dict.fromkeys(_tag(route) for route in routes)
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Functions",
            "version": version,
            "description": "Register functions, deploy them, and read their queues. Lists are "
            "ordered by creation; with `limit`, they are paged. Calls of functions, their polling "
            "routes (/v2/nvcf/pexec, /v2/nvcf/exec) and /v2/requests are not routes of this API: "
            "docs/wire.md and docs/detached-calls.md describe them.",
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag, "description": _FOR_ADMINS} if tag == ADMIN_TAG else {"name": tag}
            for tag in sorted(tags, key=lambda tag: tag == ADMIN_TAG)
        ],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key (nvapi-…) or a JWT",
                },
                "jwt": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A JWT of the configured issuer",
                },
            },
        },
    }


def _schemas(
    routes: Iterable[AnyRoute],
) -> tuple[dict[tuple[type[BaseModel], Mode], Schema], Schema]:
    wanted: dict[tuple[type[BaseModel], Mode], None] = {(Problem, "serialization"): None}
    for route in routes:
        if route.body is not None:
            wanted[route.body, "validation"] = None
        if route.response is not None:
            wanted[route.response, "serialization"] = None
    schemas, definitions = models_json_schema(list(wanted), ref_template=_REF)
    by_model = {(model, mode): schemas[model, mode] for model, mode in wanted}
    return by_model, definitions.get("$defs", {})


def _operation(route: AnyRoute, schemas: dict[tuple[type[BaseModel], Mode], Schema]) -> Schema:
    operation: Schema = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "tags": [_tag(route)],
        "parameters": [*_path_parameters(route.path), *_query_parameters(route.query)],
        "responses": _responses(route, schemas),
    }
    if route.scopes:
        scopes = " or ".join(f"`{scope}`" for scope in route.scopes)
        operation["description"] = (
            "Needs the bootstrap secret."
            if route.scopes == (BOOTSTRAP,)
            else f"Needs the scope {scopes}."
        )
        operation["security"] = [{"jwt" if route.is_admin else "bearer": []}]
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.is_body_optional,
            "content": {"application/json": {"schema": schemas[route.body, "validation"]}},
        }
    if route.is_deprecated:
        operation["deprecated"] = True
    return operation


def _tag(route: AnyRoute) -> str:
    return ADMIN_TAG if route.is_admin else route.tag


def _path_parameters(path: str) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _OTHER_VARIABLES.get(name, _UUID)}
        for name in _VARIABLE.findall(path)
    ]


def _query_parameters(query: type[BaseModel] | None) -> list[Schema]:
    if query is None:
        return []
    parameters = []
    for name, schema in query.model_json_schema()["properties"].items():
        schema.pop("title", None)
        described = {"description": schema.pop("description")} if "description" in schema else {}
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": _not_null(schema),
                **described,
            }
        )
    return parameters


def _not_null(schema: Schema) -> Schema:
    """Return the schema of a parameter without null: an absent parameter is not sent."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    return {**kinds[0], **rest}


def _responses(route: AnyRoute, schemas: dict[tuple[type[BaseModel], Mode], Schema]) -> Schema:
    responses: Schema = {str(route.status): {"description": "Success"}}
    if route.response is not None:
        schema = schemas[route.response, "serialization"]
        responses[str(route.status)]["content"] = {"application/json": {"schema": schema}}
    problem = {"application/problem+json": {"schema": schemas[Problem, "serialization"]}}
    for status, description in _ERRORS.items():
        if (status in _FOR_BODIES and route.body is None) or (
            status in _FOR_CHANGES and route.method == "GET"
        ):
            continue
        responses[str(status)] = {"description": description, "content": problem}
    return responses
