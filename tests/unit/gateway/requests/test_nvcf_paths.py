"""What the paths of the polling routes name."""

import pytest

from gateway.errors import BadRequest, MethodNotAllowed
from gateway.requests.nvcf_paths import (
    PolledPath,
    check_method,
    is_polling_route,
    parse_path,
    status_path,
)

F = "11111111-1111-4111-8111-111111111111"
V = "22222222-2222-4222-8222-222222222222"
FUNCTION = "/v2/nvcf/{}/functions/{{functionId}}"


@pytest.mark.parametrize("kind", ["pexec", "exec"])
def test_a_path_names_a_function_a_version_or_a_request(kind: str) -> None:
    is_exec = kind == "exec"
    base = f"/v2/nvcf/{kind}"
    route = FUNCTION.format(kind)
    assert parse_path(f"{base}/functions/{F.upper()}".encode()) == PolledPath(route, is_exec, F)
    assert parse_path(f"{base}/functions/{F}/versions/{V}".encode()) == PolledPath(
        f"{route}/versions/{{versionId}}", is_exec, F, V
    )
    status = status_path(V, is_exec=is_exec)
    assert parse_path(status) == PolledPath(f"{base}/status/{{requestId}}", is_exec, request_id=V)


def test_a_path_may_be_below_an_organization() -> None:
    path = f"/v2/orgs/o/teams/t/nvcf/exec/status/{V}".encode()
    assert is_polling_route(path)
    found = parse_path(path)
    assert found is not None
    assert (found.organization, found.request_id) == ("o", V)
    assert found.route == "/v2/nvcf/exec/status/{requestId}"
    assert not is_polling_route(b"/v2/orgs/o/nvcf/functions")


@pytest.mark.parametrize("path", ["functions/x", f"functions/{F}/versions/x", "status/"])
def test_an_id_that_is_no_uuid_is_the_callers_fault(path: str) -> None:
    with pytest.raises(BadRequest, match="is not a UUID"):
        parse_path(f"/v2/nvcf/pexec/{path}".encode())


@pytest.mark.parametrize(
    "path", ["/v2/nvcf/pexec", "/v2/nvcf/pexec/", f"/v2/nvcf/exec/functions/{F}/", "/v2/nvcf/x"]
)
def test_other_paths_are_no_polling_routes(path: str) -> None:
    assert parse_path(path.encode()) is None


def test_a_call_is_posted_and_a_status_is_got() -> None:
    call = PolledPath("r", is_exec=False, function_id=F)
    poll = PolledPath("r", is_exec=False, request_id=V)
    check_method(call, b"POST")
    check_method(poll, b"GET")
    for path, method, allow in ((call, b"GET", b"POST"), (poll, b"POST", b"GET")):
        with pytest.raises(MethodNotAllowed) as raised:
            check_method(path, method)
        assert (b"allow", allow + b", OPTIONS") in raised.value.headers
