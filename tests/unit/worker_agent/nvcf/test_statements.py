"""When statements of the control plane are renewed."""

from worker_agent.nvcf.statements import renewal_pause_s


def test_a_statement_is_renewed_after_four_fifths_of_its_life() -> None:
    assert renewal_pause_s(10_800, 30) == 8670
    assert renewal_pause_s(100, 59) == 80
    assert renewal_pause_s(-1, 10) == 60.0
    assert renewal_pause_s(1, 10) == 1.0
