"""What all tests share."""

from collections import Counter

import pytest

# A suite that test modules make theirs: its assertions show values too.
pytest.register_assert_rewrite("tests.support.backend_behaviour")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse two tests of one name: pytest-xdist would run only one of them, and not say so."""
    counts = Counter(item.nodeid for item in items)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise pytest.UsageError(f"several tests have one name: {', '.join(repeated)}")
