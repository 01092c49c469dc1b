import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.grants import NOTHING, RequestedPolicy, covers, resolve_grant
from gateway.domain.model import EVERYTHING, ResourceScope, resources_of
from gateway.domain.principal import Principal
from gateway.errors import BadRequest, Forbidden

US = "our-service"
F = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
G = "7f9619ff-8b86-4011-b42d-00c04fc964ff"
V = "11111111-2222-4333-8444-555555555555"
ALL = resources_of(EVERYTHING)
CALLER = Principal("acme", "me", frozenset({"account_setup", "list_functions"}), EVERYTHING)

REACHES = st.builds(
    ResourceScope,
    st.booleans(),
    st.booleans(),
    st.frozensets(st.sampled_from([F, G])),
    st.frozensets(st.sampled_from([f"{F}/{V}", f"{G}/{V}"])),
)


def test_a_key_gets_what_was_asked_for() -> None:
    only = ResourceScope(versions=frozenset({f"{F}/{V}"}))
    policy = RequestedPolicy([US], ["apikey:list_functions"], resources_of(only))
    assert resolve_grant(CALLER, [policy], [US]) == (frozenset({"list_functions"}), only)


def test_policies_for_others_grant_nothing_here() -> None:
    tasks = RequestedPolicy(["tasks"], ["launch_task"], [{"type": "account-tasks", "id": "*"}])
    assert resolve_grant(CALLER, [tasks], [US]) == NOTHING
    assert resolve_grant(CALLER, [], [US]) == NOTHING
    ours = RequestedPolicy([], ["list_functions"], ALL)
    assert resolve_grant(CALLER, [tasks, ours], [US]).scopes == {"list_functions"}


@pytest.mark.parametrize(
    "policies",
    [
        [RequestedPolicy([US], ["admin:account_setup"], ALL)],
        [RequestedPolicy([US], ["bootstrap"], ALL)],
        [RequestedPolicy([US], [], [{"type": "function", "id": "*"}])],
        [RequestedPolicy([US], [], [{"type": "account-tasks", "id": "*"}])],
        [
            RequestedPolicy([US], ["list_functions"], ALL),
            RequestedPolicy([US], ["account_setup"], []),
        ],
    ],
)
def test_what_cannot_be_granted_is_refused(policies: list[RequestedPolicy]) -> None:
    with pytest.raises(BadRequest):
        resolve_grant(CALLER, policies, [US])


def test_nobody_gives_what_they_lack() -> None:
    with pytest.raises(Forbidden, match="invoke_function"):
        resolve_grant(CALLER, [RequestedPolicy([US], ["invoke_function"], ALL)], [US])
    narrow = CALLER._replace(reach=ResourceScope(functions=frozenset({F})))
    resolve_grant(
        narrow, [RequestedPolicy([US], [], [{"type": "function", "id": f"{F}/{V}"}])], [US]
    )
    for wider in ([{"type": "function", "id": f"{G}/*"}], ALL):
        with pytest.raises(Forbidden):
            resolve_grant(narrow, [RequestedPolicy([US], [], wider)], [US])


@given(REACHES, REACHES, REACHES)
def test_giving_on_never_adds(
    first: ResourceScope, second: ResourceScope, third: ResourceScope
) -> None:
    assert covers(first, first)
    assert covers(EVERYTHING, first)
    if covers(first, second) and covers(second, third):
        assert covers(first, third)
    if covers(first, second):
        assert not (second.own and not first.own)
        assert second.functions <= first.functions or (first.own and first.shared)
