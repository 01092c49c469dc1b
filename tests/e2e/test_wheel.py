"""The built wheel, installed where nothing of the source tree is: `gateway dev` works from it."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.support.programs import ROOT, Program
from tests.support.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE_S)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the commands of a new environment that has the wheel and its requirements."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # The requirements are those of this environment, which a `.pth` file adds without its own ones.
    (own / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(folder / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps"]
    subprocess.run(
        [*install, "--no-index", str(wheel)],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
        cwd=folder,
        env={"PATH": ""},
    )
    return folder / "bin"


def test_the_wheel_has_our_packages_and_the_settings_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert top == set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert {"gateway/config/gateway.toml", "gateway/config/worker.toml"} <= set(names)


def test_settings_files_are_shown_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    for program in ("gateway", "worker"):
        shown = subprocess.run(
            [str(installed / "gateway"), "config", "show", program],
            cwd=tmp_path,
            capture_output=True,
            check=True,
            timeout=PATIENCE_S,
            env={},
        )
        assert shown.stdout == (ROOT / "config" / f"{program}.toml").read_bytes()


def test_the_demo_is_called_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    program = Program(
        [str(installed / "gateway"), "dev", "--port", "0"],
        # nats-server is a requirement's command, and those are in this environment.
        {"PYTHONPATH": "", "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"},
        cwd=tmp_path,
    )
    try:
        program.wait_line(lambda line: line.startswith("Ready."), 3 * PATIENCE_S)
        call = program.wait_line(lambda line: "/echo" in line and "curl" in line)
        words = [word.strip("'") for word in call.split()]
        key = words[words.index("Bearer") + 1]
        host = words[words.index("Host:") + 1]
        headers = {"authorization": f"Bearer {key}", "host": host}
        told = httpx.post(words[-1], content=b"hello", headers=headers, timeout=PATIENCE_S)
        assert (told.status_code, told.content) == (200, b"hello")
    finally:
        assert program.stop() == 0
