import httpx

from invocation_client.failures import CallFailure, Processing, Resends


def failure(processing: Processing) -> CallFailure:
    return CallFailure(httpx.RemoteProtocolError, "text", processing)


def test_a_refused_request_is_sent_again_once_and_one_that_was_left_out_three_times() -> None:
    resends = Resends(is_repeatable=True)
    assert [resends.take(failure(Processing.REFUSED)) for _ in range(2)] == [True, False]
    left_out = [resends.take(failure(Processing.LEFT_OUT)) for _ in range(4)]
    assert left_out == [True, True, True, False]


def test_what_may_have_been_processed_is_not_sent_again() -> None:
    assert not Resends(is_repeatable=True).take(failure(Processing.POSSIBLE))


def test_a_body_that_was_streamed_is_not_sent_again() -> None:
    assert not Resends(is_repeatable=False).take(failure(Processing.LEFT_OUT))
