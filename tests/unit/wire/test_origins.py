"""Origins of web pages, as settings and the API accept them."""

import pytest

from wire.origins import normal_origin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", "*"),
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[::1]", "http://[::1]"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_origin_becomes_what_browsers_send(text: str, expected: str) -> None:
    assert normal_origin(text) == expected
    assert normal_origin(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "app.example",
        "https://",
        "https://app.example/",
        "https://app.example/page",
        "https://*.example",
        "https://me@app.example",
        "https://app.example\n",
        "https://a,https://b",
        "https://" + "a" * 300,
    ],
)
def test_whatever_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an origin is scheme://host"):
        normal_origin(text)
