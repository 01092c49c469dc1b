"""Garbage collection of a process that serves: seldom, and only of what came later."""

import ctypes
import gc


def settle() -> None:
    """Exclude the present objects from garbage collection, and collect less often.

    Call it when the process is ready: they are used to the end, and the objects of requests rarely
    form cycles. What the start has freed goes back to the system where libc can do that (glibc).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
