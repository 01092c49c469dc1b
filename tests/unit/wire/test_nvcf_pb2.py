"""The committed modules equal the compiler's output for their ``.proto`` files."""

import re
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VERSION_LINE = re.compile(r"# Protobuf Python Version: .*|    \d+,|import datetime|\s*")


def without_versions(text: str) -> list[str]:
    """Remove lines that depend on the compiler's version and not on the contract."""
    return [line for line in text.splitlines() if VERSION_LINE.fullmatch(line) is None]


@pytest.mark.parametrize("proto", ["nvcf", "nvcf_worker"])
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi"])
def test_the_generated_module_is_current(proto: str, suffix: str, tmp_path: Path) -> None:
    name = proto + suffix
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{resources.files('grpc_tools') / '_proto'}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            str(ROOT / "wire" / f"{proto}.proto"),
        ]
    )
    assert status == 0
    generated = (tmp_path / "wire" / name).read_text()
    assert without_versions((ROOT / "wire" / name).read_text()) == without_versions(generated)


@pytest.mark.parametrize("name", ["nvcf_pb2.py", "nvcf_worker_pb2.py"])
def test_the_committed_module_runs_with_the_oldest_protobuf_that_we_allow(name: str) -> None:
    text = (ROOT / "wire" / name).read_text()
    needed = re.search(r"# Protobuf Python Version: (\d+)\.(\d+)", text)
    allowed = re.search(r'"protobuf>=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text())
    assert needed is not None
    assert allowed is not None
    assert tuple(map(int, needed.groups())) <= tuple(map(int, allowed.groups()))
