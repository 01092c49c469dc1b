"""Keys of objects."""

import pytest

from gateway.objects.interface import check_key, check_prefix, check_size


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "a/../b", "..", ".", "a b", "a\n", "a+/b", "\u00e9", "a\0", "a" * 513],
)
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        check_key(key)


def test_keys_and_prefixes() -> None:
    check_key("assets/=5f-1.x_/2")
    check_prefix("")
    check_prefix("assets/a/")
    with pytest.raises(ValueError, match="prefix"):
        check_prefix("assets/a")
    check_size(None, 4)
    check_size(4, 4)
    with pytest.raises(ValueError, match="announced"):
        check_size(4, 5)
