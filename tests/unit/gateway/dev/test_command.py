"""Checks that `gateway dev` makes before it starts anything."""

import sys

import pytest
from typer.testing import CliRunner

from gateway.dev.command import app, check_demo, log_env
from gateway.dev.options import OptionError, functions_of


def test_a_demo_that_is_not_installed_is_reported_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_demo(functions_of(None, None, (), ()))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(OptionError, match=r"pip install 'invocation-gateway\[examples\]'"):
        check_demo(functions_of(None, None, (), ()))
    check_demo(functions_of("my-server --port {port}", None, (), ()))


@pytest.mark.parametrize(("level", "written"), [(None, None), ("debug", None), ("error", "info")])
def test_the_line_that_tells_that_a_process_is_ready_is_always_written_as_json(
    monkeypatch: pytest.MonkeyPatch, level: str | None, written: str | None
) -> None:
    monkeypatch.delenv("GATEWAY_LOG__LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("GATEWAY_LOG__LEVEL", level)
    env = log_env()
    assert (env["GATEWAY_LOG__FORMAT"], env.get("GATEWAY_LOG__LEVEL")) == ("json", written)


def test_the_help_says_that_the_log_format_of_the_environment_has_no_effect() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "GATEWAY_LOG__FORMAT has no effect" in " ".join(shown.split())
