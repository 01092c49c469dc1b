"""The source tree of an older revision of the project, from its git repository."""

import io
import subprocess
import tarfile
from pathlib import Path

_REPOSITORY = Path(__file__).parents[1]


class RevisionError(Exception):
    """The revision cannot be read; the message says why."""


def extract(revision: str, folder: Path) -> None:
    """Write the files of ``revision`` into ``folder``, which is created. Raises RevisionError."""
    command = ["git", "-C", str(_REPOSITORY), "archive", "--format=tar", "--end-of-options"]
    try:
        done = subprocess.run([*command, revision], capture_output=True, check=False)
    except OSError as error:
        raise RevisionError(f"--against needs git: {error}") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise RevisionError(f"--against {revision}: {reason}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
