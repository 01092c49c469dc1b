"""The generated pages of the documentation are those that are committed."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_states_is_generated_from_the_tables() -> None:
    page = runpy.run_path(str(DOCS / "diagrams.py"))["page"]
    assert (DOCS / "states.md").read_text() == page(), "run: make docs"
