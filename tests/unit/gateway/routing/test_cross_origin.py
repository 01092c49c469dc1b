"""Preflights, and what lets a web page read a response."""

from typing import Any

import pytest

from gateway.domain.cors import OPEN, PagePolicy
from gateway.domain.model import FunctionVersion, VersionState
from gateway.domain.readmodel import ReadModel
from gateway.routing.call_head import CallHead
from gateway.routing.cross_origin import CrossOrigin, PageAccess, with_cors, with_link_headers
from http1.stream import Headers, Request
from wire.ids import FunctionId, VersionId

F = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
V = VersionId("11111111-2222-4333-8444-555555555555")
OTHER_V = VersionId("21111111-2222-4333-8444-555555555555")
APP = b"https://app.example"
EVIL = b"https://evil.example"
LISTED = PagePolicy(frozenset({"https://app.example"}))
WITH_COOKIES = PagePolicy(frozenset({"https://app.example"}), allows_credentials=True)
ALLOWED = (b"access-control-allow-origin", APP)
ANYBODY = (b"access-control-allow-origin", b"*")


def rules(*policies: PagePolicy | None, own: PagePolicy = OPEN) -> CrossOrigin:
    """Return the rules with a function that has a version with each of ``policies``."""
    model = ReadModel()
    for version_id, policy in zip((V, OTHER_V), policies, strict=False):
        model.apply(version(policy, version_id))
    return CrossOrigin(model, own)


def version(policy: PagePolicy | None, version_id: VersionId = V) -> FunctionVersion:
    return FunctionVersion(F, version_id, "own", "name", VersionState.ACTIVE, page_policy=policy)


def head(**members: Any) -> CallHead:
    return CallHead(F, None, None, None, APP)._replace(**members)


def preflight(origin: bytes = APP, *more: tuple[bytes, bytes]) -> Request:
    asks = [(b"origin", origin), (b"access-control-request-method", b"PUT"), *more]
    return Request(b"OPTIONS", b"/v1/x", b"f", asks, 0, 0.0)


def asked(headers: Headers | None) -> dict[bytes, bytes]:
    assert headers is not None
    found = dict(headers)
    assert len(found) == len(headers)
    return found


def test_a_preflight_of_a_listed_origin_may_send_what_it_asks_for() -> None:
    wanted = (b"access-control-request-headers", b"authorization,x-mine")
    for credential in (None, b"Bearer key"):
        found = rules(LISTED).preflight(preflight(APP, wanted), head(authorization=credential))
        assert asked(found) == {
            b"access-control-allow-origin": APP,
            b"access-control-allow-methods": b"PUT",
            b"access-control-allow-headers": b"authorization,x-mine",
            b"access-control-max-age": b"86400",
            b"vary": b"origin, access-control-request-method, access-control-request-headers",
        }


def test_cookies_need_a_policy_that_allows_them() -> None:
    found = asked(rules(WITH_COOKIES).preflight(preflight(), head()))
    assert found[b"access-control-allow-credentials"] == b"true"


def test_a_preflight_of_another_origin_gets_a_response_that_allows_nothing() -> None:
    assert set(asked(rules(LISTED).preflight(preflight(EVIL), head(origin=EVIL)))) == {b"vary"}


def test_without_a_policy_the_container_decides_by_its_response_to_the_call() -> None:
    for own in (OPEN, LISTED):
        found = asked(rules(None, own=own).preflight(preflight(EVIL), head(origin=EVIL)))
        assert found[b"access-control-allow-origin"] == b"*"


def test_a_preflight_with_a_credential_goes_to_a_container_without_a_policy() -> None:
    assert rules(None).preflight(preflight(), head(authorization=b"Bearer key")) is None
    linked = head(authorization=b"Bearer token", is_linked=True)
    assert rules(None).preflight(preflight(), linked) is not None


def test_a_function_that_does_not_exist_looks_like_one_without_a_policy() -> None:
    assert rules().preflight(preflight(), head()) == rules(None).preflight(preflight(), head())


@pytest.mark.parametrize(
    "request_",
    [
        Request(b"GET", b"/", b"f", [(b"origin", APP)], 0, 0.0),
        Request(b"OPTIONS", b"/", b"f", [(b"origin", APP)], 0, 0.0),
        Request(b"OPTIONS", b"/", b"f", [(b"access-control-request-method", b"GET")], 0, 0.0),
    ],
)
def test_no_other_request_is_a_preflight(request_: Request) -> None:
    assert rules(LISTED).preflight(request_, head()) is None
    assert rules(LISTED).preflight(request_, None) is None


def test_a_call_that_names_no_version_may_come_from_a_page_of_any_of_them() -> None:
    other = PagePolicy(frozenset({"https://other.example"}))
    found = asked(rules(other, LISTED).preflight(preflight(), head()))
    assert found[b"access-control-allow-origin"] == APP
    named = asked(rules(other, LISTED).preflight(preflight(), head(version_id=V)))
    assert b"access-control-allow-origin" not in named
    unknown = head(version_id="31111111-2222-4333-8444-555555555555")
    assert asked(rules(LISTED).preflight(preflight(), unknown))[ANYBODY[0]] == b"*"


def test_a_policy_replaces_what_the_container_says_and_keeps_what_it_varies_by() -> None:
    sent = [
        ANYBODY,
        (b"access-control-expose-headers", b"x"),
        (b"etag", b"1"),
        (b"vary", b"accept-encoding"),
    ]
    access = rules().of_call(version(LISTED), head())
    assert access.of_forwarded(200, sent) == [
        (b"etag", b"1"),
        (b"vary", b"accept-encoding"),
        ALLOWED,
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def test_with_cookies_every_header_is_exposed_by_its_name() -> None:
    found = dict(with_cors([(b"x-mine", b"1"), (b"nvcf-reqid", b"2")], WITH_COOKIES, APP))
    assert found[b"access-control-allow-credentials"] == b"true"
    exposed = found[b"access-control-expose-headers"].split(b", ")
    assert {b"x-mine", b"nvcf-reqid", b"retry-after", b"x-request-id"} <= set(exposed)
    assert len(exposed) == len(set(exposed))


def test_caches_learn_that_a_listed_origin_matters_even_without_one() -> None:
    assert with_cors([], LISTED, None) == [(b"vary", b"origin")]
    assert with_cors([], LISTED, EVIL) == [(b"vary", b"origin")]
    assert with_cors([(b"vary", b"Origin")], LISTED, None) == [(b"vary", b"Origin")]
    # The same for all: nothing depends on the origin.
    assert with_cors([], OPEN, None) == with_cors([], OPEN, APP)
    assert b"vary" not in dict(with_cors([], OPEN, APP))


def test_without_a_policy_a_response_is_the_containers_and_an_error_the_gateways() -> None:
    access = rules().of_call(version(None), head())
    for sent in ([], [(b"access-control-allow-origin", EVIL)], [(b"vary", b"origin")]):
        assert access.of_forwarded(200, sent) == sent
    # Browsers refuse several.
    assert access.of_forwarded(200, [ALLOWED, (b"x", b"1"), ANYBODY]) == [ALLOWED, (b"x", b"1")]
    assert ANYBODY in access.of_own_response([(b"retry-after", b"1")])
    no_page = rules().of_call(version(None), head(origin=None))
    assert no_page.of_own_response([(b"retry-after", b"1")]) == [(b"retry-after", b"1")]


def test_the_workers_problem_documents_are_readable_like_the_gateways() -> None:
    access = rules().of_call(version(None), head())
    problem = [(b"content-type", b"application/problem+json")]
    assert ANYBODY in access.of_forwarded(500, problem)
    assert access.of_forwarded(400, problem) == problem
    own_rules = [*problem, (b"access-control-allow-origin", EVIL)]
    assert access.of_forwarded(500, own_rules) == own_rules


def test_a_refused_call_follows_the_policy_of_the_function_that_it_names() -> None:
    request = Request(b"POST", b"/", b"f", [(b"origin", APP)], 0, 0.0)
    assert rules(LISTED).of_refusal(request, head()) == PageAccess(LISTED, APP, replaces=True)
    assert rules(None).of_refusal(request, head()).policy is OPEN
    assert rules().of_refusal(request, head(origin=None)).policy is None
    assert rules().of_refusal(request, None) == PageAccess(OPEN, APP, replaces=True)


def test_a_response_to_a_link_is_private_and_its_url_is_not_sent_on() -> None:
    assert with_link_headers([(b"etag", b"1")]) == [
        (b"etag", b"1"),
        (b"cache-control", b"private"),
        (b"referrer-policy", b"no-referrer"),
    ]
    own = [(b"cache-control", b"no-store"), (b"referrer-policy", b"same-origin")]
    assert with_link_headers(own) == own
    linked = rules().of_call(version(None), head(is_linked=True))
    for found in (linked.of_forwarded(200, []), linked.of_own_response([])):
        assert (b"referrer-policy", b"no-referrer") in found
