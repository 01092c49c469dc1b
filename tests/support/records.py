"""Hypothesis strategies for the records of the store."""

from hypothesis import strategies as st

from gateway.domain.account import TOPICS
from gateway.domain.model import (
    Account,
    AccountSecrets,
    ApiKey,
    Client,
    Deployment,
    Function,
    FunctionVersion,
    GpuSpec,
    HealthInfo,
    Instance,
    PagePolicy,
    Phase,
    Record,
    Renewals,
    ResourceScope,
    Secrets,
    VersionDetails,
    VersionState,
)
from gateway.domain.renewals import PARTS, Renewal
from wire.ids import FunctionId, VersionId

UUIDS = st.uuids().map(str)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ACCOUNTS = st.frozensets(TEXTS, max_size=3)
SECONDS = st.integers(0, 2**40)
REACHES = st.builds(
    ResourceScope,
    st.booleans(),
    st.booleans(),
    st.frozensets(UUIDS, max_size=2),
    st.frozensets(st.tuples(UUIDS, UUIDS).map("/".join), max_size=2),
)
OBJECTS = st.dictionaries(TEXTS, st.none() | st.booleans() | SECONDS | TEXTS, max_size=3)
SPECS = st.builds(GpuSpec, TEXTS, TEXTS, TEXTS, TEXTS, SECONDS, SECONDS, SECONDS, OBJECTS)
HEALTHS = st.builds(HealthInfo, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
IDS = (UUIDS.map(FunctionId), UUIDS.map(VersionId), TEXTS)
RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(VersionDetails, *IDS, TEXTS, OBJECTS, st.lists(TEXTS, max_size=2).map(tuple), TEXTS),
    st.builds(
        Deployment,
        TEXTS,
        *IDS,
        st.lists(SPECS, max_size=2).map(tuple),
        TEXTS,
        TEXTS,
        SECONDS,
        st.none() | SECONDS,
        st.lists(HEALTHS, max_size=2).map(tuple),
    ),
    st.builds(
        Instance,
        TEXTS,
        TEXTS,
        TEXTS,
        *IDS,
        TEXTS,
        TEXTS,
        TEXTS,
        st.sampled_from(Phase),
        TEXTS,
        TEXTS,
        TEXTS,
        st.booleans(),
        st.booleans(),
        SECONDS,
        SECONDS,
        SECONDS,
    ),
    st.builds(
        Renewals,
        UUIDS,
        st.sampled_from(PARTS),
        st.dictionaries(UUIDS, st.builds(Renewal, SECONDS, SECONDS), max_size=3),
    ),
    st.builds(Account, TEXTS, TEXTS, SECONDS, TEXTS),
    st.builds(Client, TEXTS, TEXTS),
    st.builds(Secrets, *IDS, st.binary(max_size=20), TEXTS),
    st.builds(AccountSecrets, TEXTS, st.sampled_from(TOPICS), st.binary(max_size=20), TEXTS),
    st.builds(Function, UUIDS.map(FunctionId), TEXTS, ACCOUNTS, st.booleans()),
    st.builds(
        FunctionVersion,
        UUIDS.map(FunctionId),
        UUIDS.map(VersionId),
        TEXTS,
        TEXTS,
        st.sampled_from(VersionState),
        TEXTS,
        st.integers(0, 65535),
        ACCOUNTS,
        st.booleans(),
        TEXTS,
        st.integers(0, 65535),
        SECONDS,
        st.booleans(),
        st.booleans(),
        st.none()
        | st.builds(PagePolicy, st.frozensets(TEXTS, min_size=1, max_size=2), st.booleans()),
    ),
    st.builds(
        ApiKey,
        TEXTS,
        st.binary(min_size=32, max_size=32),
        TEXTS,
        TEXTS,
        st.frozensets(TEXTS, max_size=3),
        REACHES,
        SECONDS,
        st.none() | SECONDS,
        st.booleans(),
        TEXTS,
    ),
)
