"""The worker token of a control plane, kept for an agent that starts again in the same pod.

The token in the environment is valid for three hours, the pod lives longer. The file is the one of
NVIDIA's worker: JSON with ``access_token`` and ``expiry``, a time of RFC 3339.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from runtime.files import write_private

FILE_NAME = "nvcf-worker-token.json"
_LAST = datetime.max.replace(tzinfo=UTC, microsecond=0)
"""The last time of RFC 3339, for a token that ends later or never."""


def read_token(folder: Path, now: float) -> str:
    """Return the token in the file, empty without one that is valid at ``now`` (Unix seconds)."""
    try:
        document = json.loads((folder / FILE_NAME).read_text())
        token, expiry = document["access_token"], document["expiry"]
        ends_at = datetime.fromisoformat(expiry).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return token if isinstance(token, str) and ends_at > now else ""


def write_token(folder: Path, token: str, expires_at: float) -> None:
    """Write the file. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    ends_at = datetime.fromtimestamp(min(expires_at, _LAST.timestamp()), UTC)
    expiry = ends_at.isoformat().replace("+00:00", "Z")
    document = {"access_token": token, "token_type": "Bearer", "expiry": expiry}
    write_private(folder / FILE_NAME, json.dumps(document))
