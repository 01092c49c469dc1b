"""Prints ``PASS name`` or ``FAIL name: why`` for each thing that a client is tried with."""

import traceback
from collections.abc import Callable, Mapping


def try_all(tried: Mapping[str, Callable[[], object]]) -> None:
    for name, attempt in tried.items():
        try:
            attempt()
        except Exception as error:  # noqa: BLE001
            why = "".join(traceback.format_exception_only(error)).strip().replace("\n", " ")
            print(f"FAIL {name}: {why[:400]}", flush=True)
        else:
            print(f"PASS {name}", flush=True)
