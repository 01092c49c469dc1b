from runtime.ids import new_uuid
from wire.ids import parse_uuid


def test_a_new_uuid_is_random_canonical_and_of_version_4() -> None:
    made = new_uuid()
    assert parse_uuid(made.encode()) == made
    assert made[14] == "4"
    assert new_uuid() != made
