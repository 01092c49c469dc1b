"""The version of the installed programs."""

from functools import cache
from importlib import metadata

_DISTRIBUTION = "invocation-gateway"
UNKNOWN = "unknown"


@cache
def program_version() -> str:
    """Return the version of the package, `UNKNOWN` if the programs run without being installed."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return UNKNOWN
