"""The agent's part: it alone knows where its inference server is."""

import pytest

from http1.stream import Headers
from tests.support.envelopes import envelope
from worker_agent.job.locations import with_outer_locations
from worker_agent.job.request import PlatformHeaders

PLATFORM = PlatformHeaders("Model.local:9001", [], asset_dir="", large_output_dir="")
INNER = b"http://model.local:9001/a/"


@pytest.mark.parametrize(
    ("told", "location"),
    [
        (
            [(b"x-forwarded-host", b"f.example:8443"), (b"x-forwarded-proto", b"https")],
            b"https://f.example:8443/a/",
        ),
        ([(b"x-forwarded-host", b"f.example")], b"http://f.example/a/"),
        (
            [(b"x-forwarded-host", b"f.example"), (b"x-forwarded-prefix", b"/f/x")],
            b"http://f.example/f/x/a/",
        ),
        ([(b"x-forwarded-prefix", b"/f/x")], b"/a/"),
        ([(b"x-forwarded-proto", b"https")], b"/a/"),
        ([(b"x-forwarded-host", b"a b"), (b"x-forwarded-proto", b"https")], b"/a/"),
        ([(b"x-forwarded-host", b"f.example"), (b"x-forwarded-proto", b"ftp")], b"/a/"),
    ],
)
def test_a_location_leads_to_what_the_envelope_says_was_called(
    told: Headers, location: bytes
) -> None:
    """Without it, as from another make of gateway, the location is relative."""
    given = [(b"location", INNER), (b"content-location", INNER), (b"link", INNER)]
    assert with_outer_locations(given, envelope(headers=tuple(told)), PLATFORM) == [
        (b"location", location),
        (b"content-location", location),
        (b"link", INNER),
    ]


def test_a_location_with_the_scheme_left_out_is_one_with_a_host() -> None:
    given = [(b"location", INNER.removeprefix(b"http:"))]
    stated = ((b"x-forwarded-host", b"f.example"),)
    assert with_outer_locations(given, envelope(headers=stated), PLATFORM) == [
        (b"location", b"http://f.example/a/")
    ]


def test_a_path_is_left_to_the_gateway() -> None:
    stated = ((b"x-forwarded-host", b"f.example"), (b"x-forwarded-prefix", b"/f/x"))
    given = [(b"location", b"/a")]
    assert with_outer_locations(given, envelope(headers=stated), PLATFORM) == given


def test_headers_without_a_location_are_the_same_list() -> None:
    given = [(b"content-type", b"text/plain")]
    assert with_outer_locations(given, envelope(), PLATFORM) is given
