"""Which functions of a data folder are those of `gateway dev`, and which need a new version."""

from gateway.dev.functions import fits, versions_of_dev
from gateway.dev.options import functions_of
from gateway.domain.model import VersionDetails
from wire.ids import FunctionId, VersionId


def version(
    function_id: str, version_id: str, at: int, *tags: str, name: str = "chat", image: str = "chat"
) -> VersionDetails:
    spec = {"name": name, "containerImage": image, "tags": list(tags)}
    return VersionDetails(FunctionId(function_id), VersionId(version_id), "dev", f"2026-{at}", spec)


def ids(*found: VersionDetails) -> dict[str, list[str]]:
    return {
        name: [details.version_id for details in versions]
        for name, versions in versions_of_dev(found).items()
    }


def test_versions_with_the_tag_are_those_of_dev_oldest_first() -> None:
    later = version("f", "2", 12, "gateway-dev", "mine")
    first = version("f", "1", 11, "gateway-dev")
    users = version("g", "3", 10)
    assert ids(later, first, users) == {"chat": ["1", "2"]}


def test_a_function_whose_tags_were_replaced_is_still_the_one_of_dev() -> None:
    assert ids(version("f", "1", 11, "prod"), version("g", "2", 12)) == {"chat": ["1"]}


def test_tags_of_one_version_do_not_take_it_from_its_function() -> None:
    first, later = version("f", "1", 11, "prod"), version("f", "2", 12, "gateway-dev")
    assert ids(later, first) == {"chat": ["1", "2"]}


def test_what_runs_another_image_is_the_users() -> None:
    assert ids(version("g", "1", 11, image="other"), version("h", "2", 12, name="x")) == {}


def test_another_protocol_or_health_path_needs_a_new_version() -> None:
    stored = {
        "inferenceUrl": "/",
        "containerImage": "my-server",
        "health": {"protocol": "HTTP", "uri": "/health"},
    }
    (plain,) = functions_of("serve", None, (), ())
    (elsewhere,) = functions_of("serve", None, (), ["/ready"])
    (grpc,) = functions_of("serve", None, (), (), speak_grpc=True)
    stored_grpc = {
        **stored,
        "inferenceUrl": "/grpc",
        "health": {"protocol": "gRPC", "uri": "/health"},
    }
    assert fits(stored, plain)
    assert not fits(stored, elsewhere)
    assert not fits(stored, grpc)
    assert fits(stored_grpc, grpc)
    assert not fits(stored_grpc, plain)
