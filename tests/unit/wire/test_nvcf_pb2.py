"""The committed module equals the compiler's output for `wire/nvcf.proto`."""

import re
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VERSION_LINE = re.compile(r"# Protobuf Python Version: .*|    \d+,|import datetime|\s*")


def without_versions(text: str) -> list[str]:
    """Remove lines that depend on the compiler's version and not on the contract."""
    return [line for line in text.splitlines() if VERSION_LINE.fullmatch(line) is None]


@pytest.mark.parametrize("name", ["nvcf_pb2.py", "nvcf_pb2.pyi"])
def test_the_generated_module_is_current(name: str, tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{resources.files('grpc_tools') / '_proto'}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            str(ROOT / "wire" / "nvcf.proto"),
        ]
    )
    assert status == 0
    generated = (tmp_path / "wire" / name).read_text()
    assert without_versions((ROOT / "wire" / name).read_text()) == without_versions(generated)


def test_the_committed_module_runs_with_the_oldest_protobuf_that_we_allow() -> None:
    text = (ROOT / "wire" / "nvcf_pb2.py").read_text()
    needed = re.search(r"# Protobuf Python Version: (\d+)\.(\d+)", text)
    allowed = re.search(r'"protobuf>=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text())
    assert needed is not None
    assert allowed is not None
    assert tuple(map(int, needed.groups())) <= tuple(map(int, allowed.groups()))
