from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.model import (
    INVOCABLE,
    SERVING,
    ApiKey,
    ApiKeyKey,
    Change,
    Function,
    FunctionKey,
    FunctionVersion,
    Removed,
    VersionKey,
    VersionState,
)
from gateway.domain.readmodel import ReadModel
from wire.ids import FunctionId, VersionId

FUNCTIONS = st.sampled_from([FunctionId("f1"), FunctionId("f2")])
VERSIONS = st.sampled_from([VersionId("v1"), VersionId("v2"), VersionId("v3")])
ACCOUNTS = st.sampled_from(["own", "other"])
KEYS = st.sampled_from(["k1", "k2"])
NAMES = st.sampled_from(["n", "m"])
SHARED = st.frozensets(ACCOUNTS)
CHANGES = st.one_of(
    st.builds(Function, FUNCTIONS, ACCOUNTS, SHARED, st.booleans()),
    st.builds(
        FunctionVersion,
        FUNCTIONS,
        VERSIONS,
        ACCOUNTS,
        NAMES,
        st.sampled_from(VersionState),
        shared_with=SHARED,
        is_public=st.booleans(),
    ),
    st.builds(
        ApiKey,
        KEYS,
        st.sampled_from([b"1", b"2", b"3"]),
        ACCOUNTS,
        st.just("s"),
        st.just(frozenset[str]()),
        is_revoked=st.booleans(),
    ),
    st.builds(FunctionKey, FUNCTIONS).map(Removed),
    st.builds(VersionKey, FUNCTIONS, VERSIONS).map(Removed),
    st.builds(ApiKeyKey, KEYS).map(Removed),
)


@given(st.lists(CHANGES, max_size=30))
def test_whatever_changes_come_the_model_shows_the_last_of_each(changes: list[Change]) -> None:
    model = ReadModel()
    for change in changes:
        model.apply(change)
    versions: dict[tuple[str, str], FunctionVersion] = {}
    functions: dict[str, Function] = {}
    for change in changes:
        match change:
            case FunctionVersion():
                versions[change.function_id, change.version_id] = change
            case Removed(VersionKey() as key):
                versions.pop((key.function_id, key.version_id), None)
            case Function():
                functions[change.function_id] = change
            case Removed(FunctionKey() as key):
                functions.pop(key.function_id, None)
    for function_id in ("f1", "f2"):
        expected = {v: r for (f, v), r in versions.items() if f == function_id}
        entry = model.function(function_id)
        if not expected and function_id not in functions:
            assert entry is None
            continue
        assert entry is not None
        assert entry.function == functions.get(function_id)
        assert entry.versions == expected
        serving = {v for v in expected.values() if v.state in SERVING}
        awaited = {v for v in expected.values() if v.state in INVOCABLE}
        assert set(entry.invocable) == (serving or awaited)
        accounts = {version.account for version in expected.values()}
        assert entry.account == (accounts.pop() if len(accounts) == 1 else None)
    assert model.function_count == len({f for f, _ in versions} | set(functions))
    for account in ("own", "other", "third"):
        seen = {
            (version.name, function_id)
            for (function_id, _), version in versions.items()
            for function in [functions.get(function_id)]
            if account == version.account
            or account in version.shared_with
            or version.is_public
            or (function is not None and (account in function.shared_with or function.is_public))
        }
        assert {(n, f) for n in ("n", "m") for f in model.named(account, n)} == seen
        assert set(model.names(account)) == {name for name, _ in seen}


KEY = ApiKey("k", b"digest", "account", "subject", frozenset({"invoke_function"}))


def test_a_revoked_key_is_not_found() -> None:
    model = ReadModel()
    model.apply(KEY)
    assert model.key(b"digest") == KEY
    model.apply(replace(KEY, is_revoked=True))
    assert model.key(b"digest") is None
    assert not model.has_keys("account")


def test_a_key_that_is_written_with_another_digest_loses_the_old_one() -> None:
    model = ReadModel()
    model.apply(KEY)
    model.apply(replace(KEY, digest=b"new"))
    assert model.key(b"digest") is None
    assert model.key(b"new") is not None


def test_a_removed_key_is_not_found_and_may_be_removed_again() -> None:
    model = ReadModel()
    model.apply(KEY)
    model.apply(Removed(ApiKeyKey("k")))
    model.apply(Removed(ApiKeyKey("k")))
    assert model.key(b"digest") is None
