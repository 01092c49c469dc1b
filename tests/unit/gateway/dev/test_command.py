"""Checks that `gateway dev` makes before it starts anything."""

import sys

import pytest

from gateway.dev.children import ChildError
from gateway.dev.command import DEMO_COMMAND, check_demo


def test_a_demo_that_is_not_installed_is_reported_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_demo(DEMO_COMMAND)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ChildError, match=r"pip install 'invocation-gateway\[examples\]'"):
        check_demo(DEMO_COMMAND)
    check_demo("my-server --port {port}")
