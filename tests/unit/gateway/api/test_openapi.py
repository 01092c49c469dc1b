import json
import re
from typing import Any

from gateway.api.app import ROUTES
from gateway.api.docs_page import page
from gateway.api.openapi import document
from gateway.api.routes.accounts import ROUTES as ACCOUNTS

DOCUMENT = document(ROUTES)
OPERATIONS = [
    (path, method, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]


def within(value: object) -> list[dict[str, Any]]:
    """Return every object in ``value``, itself too."""
    if isinstance(value, dict):
        return [value, *(one for part in value.values() for one in within(part))]
    if isinstance(value, list):
        return [one for part in value for one in within(part)]
    return []


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def test_every_reference_leads_somewhere_and_everything_is_json() -> None:
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) <= known
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_schemas_are_named_like_their_models_whatever_module_they_are_in() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert [name for name in schemas if not re.fullmatch("[A-Za-z]+", name)] == []
    assert {"Resource", "KeyResource"} <= set(schemas)


def test_operations_have_ids_of_their_own_and_name_every_variable_of_their_path() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    for path, _, operation in OPERATIONS:
        named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_every_route_of_the_specification_is_there() -> None:
    v, f, d = "/v2/nvcf", "functions/{functionId}", "/versions/{functionVersionId}"
    assert {
        (f"{v}/functions", "post"),
        (f"{v}/{f}/versions", "post"),
        (f"{v}/functions", "get"),
        (f"{v}/{f}/versions", "get"),
        (f"{v}/{f}{d}", "get"),
        (f"{v}/{f}{d}", "delete"),
        (f"{v}/deployments/{f}{d}", "post"),
        (f"{v}/deployments/{f}{d}", "get"),
        (f"{v}/deployments/{f}{d}", "put"),
        (f"{v}/deployments/{f}{d}", "delete"),
        (f"{v}/queues/{f}", "get"),
        (f"{v}/queues/{f}{d}", "get"),
        (f"{v}/queues/{{requestId}}/position", "get"),
        (f"{v}/supportedGpus", "get"),
    } <= {(path, method) for path, method, _ in OPERATIONS}


def test_names_in_a_path_are_described_as_what_they_are() -> None:
    schemas = {
        one["name"]: one["schema"]
        for route in ACCOUNTS
        for one in document([route])["paths"][route.path][route.method.lower()]["parameters"]
    }
    assert schemas["clientId"].get("format") is None
    is_account = re.compile(schemas["ncaId"]["pattern"]).search
    for name, is_one in (("a", True), ("~" * 128, True), ("a" * 129, False), ("", False)):
        assert bool(is_account(name)) is is_one
    assert not any(is_account(name) for name in ("a b", "a\x7f", "\u00e9"))


def test_no_answer_has_room_for_the_value_of_a_secret() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    answered = references(
        [response for _, _, operation in OPERATIONS for response in operation["responses"].values()]
    )
    reached: set[str] = set()
    while answered - reached:
        reached |= answered
        answered = references([schemas[name.rpartition("/")[2]] for name in reached])
    assert "#/components/schemas/Secret" not in reached


def test_every_text_and_list_of_a_new_function_has_a_bound() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    reached, new = set[str](), {"#/components/schemas/CreateFunction"}
    while new - reached:
        reached |= new
        new = references([schemas[name.rpartition("/")[2]] for name in reached])
    parts = [part for name in reached for part in within(schemas[name.rpartition("/")[2]])]
    texts = [
        part
        for part in parts
        if part.get("type") == "string" and not {"enum", "const"} & part.keys()
    ]
    lists = [part for part in parts if part.get("type") == "array"]
    assert len(texts) > 20
    assert len(lists) > 5
    for text in texts:
        assert "maxLength" in text or text["pattern"].endswith("{1,128}$"), text
    for one in lists:
        assert "maxItems" in one, one


def test_the_page_escapes_what_it_shows() -> None:
    shown = page(DOCUMENT)
    assert "<script" not in shown
    assert "^[a-z0-9A-Z]" in shown
