"""The scripts and their parts, as texts."""

import re
from hashlib import sha1
from importlib.resources import files

import pytest

from queueing.redis.scripts import GATEWAY, WORKER, script

FOLDER = files("queueing.redis") / "lua"
PARTS = "".join(one.read_text() for one in (FOLDER / "parts").iterdir())
FUNCTIONS = set(re.findall(r"^local function (\w+)", PARTS, re.MULTILINE))


def test_every_script_belongs_to_a_program() -> None:
    names = {one.name.removesuffix(".lua") for one in FOLDER.iterdir() if one.is_file()}
    assert names == {*GATEWAY, *WORKER}


@pytest.mark.parametrize("name", [*GATEWAY, *WORKER])
def test_a_script_has_the_parts_that_it_calls_before_it_calls_them(name: str) -> None:
    found = script(name)
    text = found.text.decode()
    assert text.startswith("#!lua")
    assert found.digest == sha1(found.text, usedforsecurity=False).hexdigest().encode()
    code = re.sub(r"--.*", "", text)
    defined: set[str] = set()
    for match in re.finditer(r"(local function )?\b(\w+)\(", code):
        is_definition, called = match.groups()
        if is_definition:
            defined.add(called)
        else:
            assert called not in FUNCTIONS or called in defined, called


@pytest.mark.parametrize("name", [*GATEWAY, *WORKER])
def test_a_script_that_only_reads_writes_nothing(name: str) -> None:
    """Servers refuse a write after ``no-writes``, and no script may fail for a full memory."""
    text = script(name).text.decode()
    flags, _, code = text.partition("\n")
    calls = set(re.findall(r"call\('(\w+)'", code))
    reads = {"HGET", "HMGET", "HKEYS", "HLEN", "HEXISTS", "HSCAN", "EXISTS", "TIME"}
    reads |= {"ZCARD", "ZRANK", "ZRANGE", "ZRANGEBYSCORE", "ZCOUNT", "LRANGE", "LLEN"}
    assert ("no-writes" in flags) <= (calls <= reads)
