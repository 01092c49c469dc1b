"""Documents of functions: what they say, and what is wrong with them."""

import json
from pathlib import Path

import pytest

from gateway.cli.apply.function_documents import json_schema, read_function
from gateway.cli.apply.planning import WantedFunction
from gateway.cli.apply.yaml_documents import FileError, read_documents

ROOT = Path(__file__).parents[5]
LEAST = "name: chat\ncontainerImage: img:1\ninferenceUrl: /v1\n"


def read(text: str, folder: Path = ROOT) -> WantedFunction:
    (document,) = read_documents(text.encode(), "f.yaml")
    return read_function(document, folder)


def problems(text: str, folder: Path = ROOT) -> list[str]:
    with pytest.raises(FileError) as failure:
        read(text, folder)
    return [str(problem) for problem in failure.value.problems]


def test_a_document_has_the_members_and_defaults_of_the_api() -> None:
    wanted = read(
        LEAST + "deploymentSpecifications:\n- {gpu: L40S, minInstances: 1, maxInstances: 2}"
    )
    assert wanted.spec["health"]["uri"] == "/v2/health/ready"
    assert wanted.gpu_specs == ({"gpu": "L40S", "minInstances": 1, "maxInstances": 2},)
    assert read(LEAST).gpu_specs == ()


def test_each_problem_has_its_line_and_path() -> None:
    text = (
        "name: a chat\ncontainerImage: img:1\ninferenceURL: /v1\nhealth:\n  protocol: HTTP\n"
        "  uri: /h\n  port: 0\n  timeout: PT1S\n  expectedStatusCode: 200\n  path: /x\n"
        "deploymentSpecifications:\n  - gpu: L40S\n    minInstances: 5\n    maxInstances: 1\n"
        "    maxInstance: 3\n"
    )
    found = problems(text)
    assert "f.yaml:3: inferenceURL: there is no such member; is it inferenceUrl?" in found
    assert "f.yaml:1: inferenceUrl: Field required" in found
    assert any(line.startswith("f.yaml:1: name: String should consist of") for line in found)
    assert any(line.startswith("f.yaml:7: health.port: ") for line in found)
    assert "f.yaml:10: health.path: there is no such member" in found
    assert any("f.yaml:15: deploymentSpecifications.0.maxInstance: there" in one for one in found)
    assert "f.yaml:12: deploymentSpecifications.0: minInstances is above maxInstances" in found


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("containerEnvironment: [{key: A, value: yes}]", "f.yaml:4: containerEnvironment.0.value:"),
        ("tags: [gateway-apply:x]", "f.yaml:4: tags.0: tags with gateway-apply are"),
        ("secrets: [{name: a, value: b}]", "f.yaml:4: secrets.0.value: there is no such member"),
        ("secrets: [{name: a}]", "f.yaml:4: secrets.0: give either fromEnv or fromFile"),
        ("secrets: [{name: a, fromEnv: NO_SUCH}]", "f.yaml:4: secrets.0.fromEnv: the environment"),
        ("secrets: [{name: a, fromFile: no/such}]", "f.yaml:4: secrets.0.fromFile: no/such cannot"),
        ("rateLimit: {rateLimits: 5-S}", "f.yaml:4: rateLimit.rateLimits: there is no such member"),
    ],
)
def test_what_a_document_may_not_say(more: str, problem: str) -> None:
    assert problems(LEAST + more)[0].startswith(problem)


def test_a_document_that_is_no_object_is_refused() -> None:
    assert problems("- a") == ["f.yaml:1: must be the members of a function"]


def test_secrets_are_read_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    monkeypatch.setenv("HF_TOKEN", "hunter3")
    secrets = "secrets:\n- {name: a, fromFile: token}\n- {name: b, fromEnv: HF_TOKEN}\n"
    wanted = read(LEAST + secrets, tmp_path)
    assert wanted.secrets == {"a": "hunter2", "b": "hunter3"}
    assert "hunter" not in repr(wanted)
    (tmp_path / "token").write_bytes(b"\xff")
    monkeypatch.setenv("HF_TOKEN", "x" * 40_000)
    first, second = problems(LEAST + secrets, tmp_path)
    assert "token cannot be read: it is not text" in first
    assert "a secret has 1 to" in second
    assert "xxx" not in second
    monkeypatch.setenv("HF_TOKEN", "hunter\udcff")
    _, second = problems(LEAST + secrets, tmp_path)
    assert second.endswith("secrets.1.fromEnv: the variable HF_TOKEN is not text in UTF-8")


def test_the_published_schema_is_that_of_the_command() -> None:
    published = ROOT / "docs" / "functions.schema.json"
    assert json.loads(published.read_text()) == json_schema(), (
        "write gateway.cli.apply.function_documents.json_schema() to the file"
    )
