"""Which functions are gRPC functions: as in NVCF, their inference URL says so.

Source: `docs/wire.md` §10.1.
"""

GRPC_PATH = "/grpc"


def is_grpc(inference_url: object) -> bool:
    """Return whether a function with this inference URL is a gRPC function.

    A missing leading ``/`` makes no difference, as in every inference URL.
    """
    return inference_url in (GRPC_PATH, GRPC_PATH.removeprefix("/"))
