"""Garbage collection of a process that serves: seldom, and only of what came later."""

import gc


def settle() -> None:
    """Exclude the present objects from garbage collection, and collect less often.

    Call it when the process is ready: they are used to the end, and the objects of requests rarely
    form cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
