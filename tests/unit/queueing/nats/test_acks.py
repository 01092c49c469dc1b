import pytest

from queueing.nats.acks import deliveries_of, pending_of, stored_at_ns_of

SHORT = b"$JS.ACK.rq_r_v.rq_r_v_workers.2.17.5.1790000000000000000.3"
LONG = b"$JS.ACK.hub.ACC123.rq_r_v.rq_r_v_workers.2.17.5.1790000000000000000.3.x7"


@pytest.mark.parametrize("subject", [SHORT, LONG])
def test_both_forms_of_an_ack_subject_are_read(subject: bytes) -> None:
    assert deliveries_of(subject) == 2


@pytest.mark.parametrize(
    "subject",
    [b"", b"_INBOX.a.b", b"$JS.ACK.s.c.1.2", SHORT.replace(b"2.17", b"x.y")],
)
def test_anything_else_is_refused(subject: bytes) -> None:
    with pytest.raises(ValueError, match=r"subject|invalid"):
        deliveries_of(subject)


def test_both_forms_say_what_waits() -> None:
    assert pending_of(SHORT) == pending_of(LONG) == 3
    assert pending_of(b"") == pending_of(b"_INBOX.a.b") == 0


def test_both_forms_say_when_the_message_was_stored() -> None:
    assert stored_at_ns_of(SHORT) == stored_at_ns_of(LONG) == 1_790_000_000_000_000_000
    assert stored_at_ns_of(b"") == stored_at_ns_of(b"_INBOX.a.b") == 0
