"""Structured log events: a name and fields, never a composed sentence."""

import logging


def emit(
    log: logging.Logger,
    event: str,
    /,
    *,
    level: int = logging.INFO,
    exc_info: BaseException | bool | None = None,
    **fields: object,
) -> None:
    """Log ``event``, a dotted name such as ``worker.lease_lost``, with its ``fields``.

    ``exc_info`` adds a traceback: that of an exception, or with `True` of the one being handled.
    `runtime.logs` writes the fields after the record's own members, which a field cannot replace.
    """
    log.log(level, event, exc_info=exc_info, extra={"fields": fields}, stacklevel=2)
