"""Documents of functions: their schema, and what they say of a function.

A document has the members of the API's ``POST /v2/nvcf/functions``, except that secrets name where
their values are, and those of a deployment. Other members are refused, unlike in a request.
"""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ValidationError, model_validator

from gateway.api.schemas.deployments import Deploy, SpecBody
from gateway.api.schemas.fields import Body, ShortText, items, unique
from gateway.api.schemas.functions import MAX_SECRETS, CreateFunction, Secret, SecretName
from gateway.cli.apply.planning import MAX_TAGS, TAG_PREFIX, WantedFunction
from gateway.cli.apply.yaml_documents import FileError, FileProblem, YamlDocument
from gateway.cli.apply.yaml_documents import Path as ValuePath
from runtime.text_rules import message_of

Model = TypeVar("Model", bound=BaseModel)
_MAX_SECRET_BYTES = 131_073
"""Of a file with a secret: more than the characters that a secret may have, in any encoding."""


class SecretSource(Body):
    """A secret that instances get as a file, and where its value is."""

    name: SecretName
    from_env: ShortText | None = None
    """Environment variable of `gateway apply`."""
    from_file: ShortText | None = None
    """File, relative to the document's. A line feed at its end is not part of the secret."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.from_env is None) == (self.from_file is None):
            raise ValueError("give either fromEnv or fromFile")
        return self


class DocumentExtras(Body):
    """The members of a document that a request for a new version has not, or has differently."""

    secrets: (
        Annotated[
            list[SecretSource],
            items(MAX_SECRETS),
            unique(lambda secret: secret.name, "the names of secrets"),
        ]
        | None
    ) = None
    """Another value makes a new version, because running instances keep theirs."""
    deployment_specifications: Annotated[list[SpecBody], items(64)] | None = None
    """The instances to run. When absent or empty, the function is not deployed."""


_EXTRAS = {str(field.alias) for field in DocumentExtras.model_fields.values()}


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a document."""
    schema = CreateFunction.model_json_schema()
    extras = DocumentExtras.model_json_schema()
    schema["properties"] |= extras["properties"]
    schema["$defs"] = {**schema["$defs"], **extras["$defs"]}
    del schema["$defs"]["Secret"]
    schema["title"] = "Function"
    schema["description"] = "A function, for `gateway apply`. A YAML file may have several."
    for part in (schema, *schema["$defs"].values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_function(document: YamlDocument, folder: Path) -> WantedFunction:
    """Return what a document says; secrets are read, from files relative to ``folder``.

    Raises `FileError` with every problem found.
    """
    members = document.value
    if not isinstance(members, dict):
        raise FileError([document.problem((), "must be the members of a function")])
    schema = json_schema()
    found = [
        document.problem(path, message)
        for path, message in _unknown_members(members, schema, schema["$defs"], ())
    ]
    body = {name: value for name, value in members.items() if name not in _EXTRAS}
    create = _validated(CreateFunction, body, document, found)
    extras = _validated(DocumentExtras, members, document, found)
    if extras is not None and extras.deployment_specifications:
        _validated(Deploy, members, document, found)
    if create is not None:
        found += _tag_problems(create, document)
    if found or create is None or extras is None:
        raise FileError(list(dict.fromkeys(found)))
    specs = extras.deployment_specifications or []
    secrets = _read_secrets(extras, document, folder)
    return WantedFunction(
        create.name,
        f"{document.source}:{document.lines[()]}",
        create.spec(),
        secrets,
        tuple(spec.model_dump(mode="json", by_alias=True, exclude_none=True) for spec in specs),
    )


def _validated(
    model: type[Model], value: object, document: YamlDocument, problems: list[FileProblem]
) -> Model | None:
    """Return ``value`` as one of ``model``; add what is wrong with it to ``problems``."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems += [
            document.problem(each["loc"], message_of(each))
            for each in error.errors(include_url=False, include_input=False)
        ]
        return None


def _tag_problems(create: CreateFunction, document: YamlDocument) -> Iterator[FileProblem]:
    tags = create.tags or []
    if len(tags) > MAX_TAGS:
        yield document.problem(("tags",), f"at most {MAX_TAGS} tags: gateway apply adds its own")
    for index, tag in enumerate(tags):
        if tag.startswith(TAG_PREFIX):
            yield document.problem(("tags", index), f"tags with {TAG_PREFIX} are gateway apply's")


def _unknown_members(
    value: object, schema: Mapping[str, Any], models: Mapping[str, Any], path: ValuePath
) -> Iterator[tuple[ValuePath, str]]:
    """Yield the members that the schema does not have."""
    if "$ref" in schema:
        schema = models[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        # Those of members that may be null; no member has a choice of objects.
        for choice in schema["anyOf"]:
            yield from _unknown_members(value, choice, models, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_members(item, schema.get("items", {}), models, (*path, index))
    elif isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        for name, member in value.items():
            if name in known:
                yield from _unknown_members(member, known[name], models, (*path, name))
            else:
                near = get_close_matches(name, known, 1)
                hint = f"; is it {near[0]}?" if near else ""
                yield (*path, name), f"there is no such member{hint}"


def _read_secrets(extras: DocumentExtras, document: YamlDocument, folder: Path) -> dict[str, str]:
    """Return the values of secrets by name. Raises `FileError`, which shows none."""
    values: dict[str, str] = {}
    problems = []
    for index, source in enumerate(extras.secrets or ()):
        try:
            value = _secret_value(source, folder)
            Secret.model_validate({"name": source.name, "value": value})
            values[source.name] = value
        except ValidationError as error:
            message = message_of(error.errors(include_url=False, include_input=False)[0])
            problems.append(document.problem(("secrets", index), message))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            message = f"{source.from_file} cannot be read: {reason}"
            problems.append(document.problem(("secrets", index, "fromFile"), message))
        except UnicodeEncodeError:
            message = f"the variable {source.from_env} is not text in UTF-8"
            problems.append(document.problem(("secrets", index, "fromEnv"), message))
        except KeyError:
            message = f"the environment has no variable {source.from_env}"
            problems.append(document.problem(("secrets", index, "fromEnv"), message))
    if problems:
        raise FileError(problems)
    return values


def _secret_value(source: SecretSource, folder: Path) -> str:
    if source.from_env is not None:
        value = os.environ[source.from_env]
        value.encode()  # What is not UTF-8 in it, Python has as surrogates.
        return value
    with (folder / str(source.from_file)).open("rb") as file:
        return file.read(_MAX_SECRET_BYTES).decode().removesuffix("\n")
