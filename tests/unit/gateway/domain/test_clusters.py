import pytest

from gateway.domain.clusters import Choice, ClusterGroup, Clusters, Gpu, InstanceType
from gateway.errors import BadRequest

CLUSTERS = Clusters(
    [
        ClusterGroup(
            "East",
            "processes",
            (Gpu("A10G", (InstanceType("small"), InstanceType("large", is_default=True))),),
            clusters=("e1", "e2"),
        ),
        ClusterGroup("West", "processes", (Gpu("A10G", (InstanceType("wide"),)),)),
        ClusterGroup("Empty", "processes", ()),
        ClusterGroup(
            "Vip", "processes", (Gpu("B200", (InstanceType("x"),)),), accounts=frozenset({"v"})
        ),
    ]
)


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        ({}, Choice("East", "A10G", "large")),
        ({"backend": "west"}, Choice("West", "A10G", "wide")),
        ({"instance_type": "SMALL"}, Choice("East", "A10G", "small")),
        ({"instance_type": "wide"}, Choice("West", "A10G", "wide")),
        ({"instance_type": "default"}, Choice("East", "A10G", "large")),
        ({"clusters": ("E2",)}, Choice("East", "A10G", "large")),
        ({"clusters": ("west",)}, Choice("West", "A10G", "wide")),
    ],
)
def test_what_is_not_said_is_chosen_and_names_are_taken_in_any_case(
    asked: dict[str, str], choice: Choice
) -> None:
    assert CLUSTERS.choose("a", "a10g", **asked) == choice  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gpu", "asked", "told"),
    [
        ("T4", {}, "there are: A10G"),
        ("B200", {}, "GPU is not known"),
        ("A10G", {"backend": "north"}, "East, West, Empty"),
        ("A10G", {"backend": "Vip"}, "backend is not known"),
        ("A10G", {"backend": "empty"}, "no GPUs"),
        ("A10G", {"backend": "east", "clusters": ("e1",)}, "either backend or clusters"),
        ("A10G", {"clusters": ("e1", "west")}, "No cluster group"),
        ("A10G", {"backend": "west", "instance_type": "small"}, "wide"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    gpu: str, asked: dict[str, str], told: str
) -> None:
    with pytest.raises(BadRequest, match=told):
        CLUSTERS.choose("a", gpu, **asked)  # type: ignore[arg-type]


def test_an_account_without_groups_can_deploy_nothing() -> None:
    with pytest.raises(BadRequest, match="no cluster groups"):
        Clusters().choose("a", "A10G")
