"""Checks that `gateway dev` makes before it starts anything."""

import sys

import pytest

from gateway.dev.command import check_demo
from gateway.dev.options import OptionError, functions_of


def test_a_demo_that_is_not_installed_is_reported_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_demo(functions_of(None, None, (), ()))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(OptionError, match=r"pip install 'invocation-gateway\[examples\]'"):
        check_demo(functions_of(None, None, (), ()))
    check_demo(functions_of("my-server --port {port}", None, (), ()))
