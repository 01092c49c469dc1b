"""No user is shown a regular expression."""

import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ValidationError

from gateway.api.parsing import parse_body
from gateway.api.schemas.functions import CreateFunction
from gateway.errors import BadRequest
from runtime.text_rules import message_of, text_rule

ROOT = Path(__file__).parents[3]
SHORT = text_rule(r"^[ab]*$", "consist of a and b", max_length=3)


class Letters(BaseModel):
    letters: Annotated[str, SHORT] = ""


def test_an_error_says_the_rule_in_words() -> None:
    with pytest.raises(ValidationError) as raised:
        Letters(letters="abc")
    (error,) = raised.value.errors()
    assert message_of(error) == "String should consist of a and b, at most 3 characters"
    with pytest.raises(ValidationError) as raised:
        Letters(letters="aaaa")
    (error,) = raised.value.errors()
    assert message_of(error) == "String should have at most 3 characters"


def test_the_api_shows_it() -> None:
    with pytest.raises(BadRequest) as raised:
        parse_body(
            b'{"name": "my model", "inferenceUrl": "/", "containerImage": "i"}', CreateFunction
        )
    assert (
        "[field=name, message=String should consist of letters, digits, - and _, and begin with a "
        "letter or digit, at most 128 characters]"
    ) in str(raised.value)


def test_every_rule_has_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("gateway", "worker_agent", "queueing", "wire", "http1")
        for path in sorted((ROOT / package).rglob("*.py"))
        # The model of problem documents describes only what the API sends.
        if path.name != "openapi.py"
        for line in path.read_text().splitlines()
        if re.search(r"\bpattern=", line)
    ]
    assert found == [], "use runtime.text_rules.text_rule"
