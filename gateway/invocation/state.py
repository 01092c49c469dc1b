"""Where an invocation is.

RECEIVING   the client's request arrives; nobody else knows of it yet
QUEUED      the envelope is published; a worker may lease it at any time
ATTACHED    a worker's POST is open, its response head is not complete
STREAMING   the head went to the client; body bytes follow
ENDING      the worker has sent everything, the client has not read everything
DONE        over: outcome set, nothing is called any more
"""

from enum import IntEnum


class State(IntEnum):
    """Where the invocation is."""

    RECEIVING = 1
    QUEUED = 2
    ATTACHED = 3
    STREAMING = 4
    ENDING = 5
    DONE = 6


RECEIVING, QUEUED, ATTACHED, STREAMING, ENDING, DONE = State
