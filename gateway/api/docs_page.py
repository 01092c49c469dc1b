"""The OpenAPI document as one HTML page, without scripts and external resources."""

from collections.abc import Iterator
from html import escape
from typing import Any

from gateway.api.openapi import ADMIN_TAG

Schema = dict[str, Any]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
summary{cursor:pointer;padding:.4rem 0}code,summary b{font-family:ui-monospace,monospace}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem .25rem 0;text-align:left;vertical-align:top}
details details,details>table,details>p{margin-left:1.2rem}
.GET{color:#06c}.POST{color:#080}.PUT,.PATCH{color:#a60}.DELETE{color:#c00}
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}td,th{border-color:#444}a{color:#8bf}}
"""


def page(document: Schema) -> str:
    """Return the page for an OpenAPI document."""
    info = document["info"]
    body = "".join(_tags(document))
    schemas = "".join(
        _schema_section(name, schema)
        for name, schema in sorted(document["components"]["schemas"].items())
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])} "
        'OpenAPI document: <a href="/v3/openapi">/v3/openapi</a>.</p>'
        f"{body}<h2>Bodies</h2>{schemas}</html>"
    )


def _tags(document: Schema) -> Iterator[str]:
    for tag in document["tags"]:
        name = tag["name"]
        tagged = [
            (path, method.upper(), operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if name in operation["tags"]
        ]
        yield f"<h2>{escape(name)}</h2>"
        if name == ADMIN_TAG:
            yield f"<p>{escape(tag['description'])}</p>{_fold(tagged)}"
        else:
            yield from (_operation(*operation) for operation in tagged)


def _fold(tagged: list[tuple[str, str, Schema]]) -> str:
    """Return the admin routes, one line each: the page describes the routes that they repeat."""
    rows = "".join(
        f'<tr><td><b class="{method}">{method}</b><td><code>{escape(path)}</code>'
        f"<td>{escape(operation['summary'])}<td>{escape(operation['description'])}"
        for path, method, operation in tagged
    )
    table = f"<table><tr><th>Method<th>Path<th>Summary<th>Scope{rows}</table>"
    return f"<details><summary>{len(tagged)} operations</summary>{table}</details>"


def _operation(path: str, method: str, operation: Schema) -> str:
    parts = [
        f'<details><summary><b class="{method}">{method}</b> <code>{escape(path)}</code> '
        f"{escape(operation['summary'])}{' (deprecated)' if operation.get('deprecated') else ''}"
        f"</summary><p>{escape(operation.get('description', 'No credential needed.'))}</p>"
    ]
    query = [parameter for parameter in operation["parameters"] if parameter["in"] == "query"]
    if query:
        rows = "".join(
            f"<tr><td><code>{escape(parameter['name'])}</code><td>{_type(parameter['schema'])}"
            f"<td>{escape(parameter.get('description', ''))}"
            for parameter in query
        )
        parts.append(f"<table><tr><th>Query<th>Type<th>Description{rows}</table>")
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"<p>Body: {_type(schema)}</p>")
    rows = "".join(
        f"<tr><td>{escape(status)}<td>{escape(response['description'])}<td>"
        + "".join(_type(kind["schema"]) for kind in response.get("content", {}).values())
        for status, response in operation["responses"].items()
    )
    parts.append(f"<table><tr><th>Status<th>Description<th>Body{rows}</table></details>")
    return "".join(parts)


def _schema_section(name: str, schema: Schema) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(member)}</code>{'' if member in required else ' (optional)'}"
        f"<td>{_type(kind)}<td>{escape(kind.get('description', ''))}"
        for member, kind in schema.get("properties", {}).items()
    )
    table = (
        f"<table><tr><th>Member<th>Type<th>Description{rows}</table>"
        if rows
        else f"<p>{_type(schema)}</p>"
    )
    return (
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<p>{escape(schema.get('description', ''))}</p>{table}</details>"
    )


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        kinds = [_type(kind) for kind in schema["anyOf"] if kind != {"type": "null"}]
        return " or ".join(kinds)
    if "enum" in schema:
        return " · ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = "".join(
        f", {word} {escape(str(schema[member]))}" for member, word in _BOUNDS if member in schema
    )
    return f"{escape(str(schema.get('const', schema.get('type', 'anything'))))}{bounds}"


_BOUNDS = (
    ("minimum", "from"),
    ("exclusiveMinimum", "above"),
    ("maximum", "to"),
    ("exclusiveMaximum", "below"),
    ("minLength", "at least"),
    ("maxLength", "at most"),
    ("pattern", "as"),
    ("format", "as"),
)
