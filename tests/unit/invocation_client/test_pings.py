from invocation_client.pings import PingSchedule


def test_any_byte_puts_the_next_ping_off() -> None:
    pings = PingSchedule(5.0, 2.0, 0.0)
    assert pings.next_at == 5.0
    pings.heard(3.0)
    assert not pings.is_due(7.9)
    assert pings.is_due(8.0)


def test_a_ping_is_unanswered_after_its_timeout_and_sent_once() -> None:
    pings = PingSchedule(5.0, 2.0, 0.0)
    pings.sent(5.0)
    assert pings.next_at == 7.0
    assert not pings.is_due(6.0)
    assert not pings.is_unanswered(6.9)
    assert pings.is_unanswered(7.0)
    pings.heard(7.0)
    assert not pings.is_unanswered(100.0)


def test_no_interval_means_never() -> None:
    pings = PingSchedule(None, 2.0, 0.0)
    assert pings.next_at is None
    assert not pings.is_due(1e9)
