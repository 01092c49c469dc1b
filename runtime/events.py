"""Structured log events: a name and fields, never a composed sentence."""

import logging


def emit(
    log: logging.Logger,
    event: str,
    level: int = logging.INFO,
    error: BaseException | None = None,
    /,
    **fields: object,
) -> None:
    """Log ``event``, a dotted name such as ``nats.disconnected``, with its ``fields``.

    With ``error`` the line also has its traceback. `runtime.logs` writes the fields after the
    record's own members (``ts``, ``level``, ``logger``, ``event``), which a field cannot replace.
    """
    log.log(level, event, exc_info=error, extra={"fields": fields}, stacklevel=2)
