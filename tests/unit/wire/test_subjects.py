from wire.subjects import (
    cancel_subject,
    consumer_name,
    position_subject,
    queue_subjects,
    request_subject,
    stream_name,
)

V = "9b2e0c1d-0000-4000-8000-00000000000f"
R = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def test_names_are_those_that_nvcf_workers_look_for() -> None:
    assert stream_name("us-east-1", V) == f"rq_us-east-1_{V}"
    assert consumer_name(stream_name("us-east-1", V)) == f"rq_us-east-1_{V}_workers"
    assert request_subject("us-east-1", V, R) == f"rq.us-east-1.{V}.{R}"
    assert queue_subjects("us-east-1", V) == f"rq.us-east-1.{V}.>"
    assert cancel_subject(V) == f"nvcf.cancel.{V}"
    assert position_subject(V) == f"nvcf.position.{V}"
