"""Memory of a gateway that has nothing to do: all its processes, and one for invocations alone."""

import time
from collections.abc import Iterable

from loadtests.children import Children
from loadtests.proc import Role, is_dev, memory_of, tree
from loadtests.systems import Target, invocations_alone

_SETTLE_S = 2.0


def idle(target: Target, children: Children) -> dict[str, float]:
    """Measure a freshly started `gateway dev` in MB, then one more process beside it.

    Raises `loadtests.children.StartError`.
    """
    time.sleep(_SETTLE_S)
    figures = _memory("idle", target.roots)
    with invocations_alone(target, children) as pid:
        time.sleep(_SETTLE_S)
        figures |= _memory("idle_alone", [pid])
    return figures


def _memory(key: str, roots: Iterable[int]) -> dict[str, float]:
    memory = memory_of(
        each.pid for each in tree(roots) if each.role is Role.FRONT or is_dev(each.argv)
    )
    return {f"{key}_rss": memory.rss / 1e6, f"{key}_pss": memory.pss / 1e6}
