from wire.subjects import (
    cancel_subject,
    consumer_name,
    position_subject,
    queue_subjects,
    stream_name,
)

V = "9b2e0c1d-0000-4000-8000-00000000000f"


def test_names_are_those_that_nvcf_workers_look_for() -> None:
    assert stream_name("us-east-1", V) == f"rq_us-east-1_{V}"
    assert consumer_name(stream_name("us-east-1", V)) == f"rq_us-east-1_{V}_workers"
    assert queue_subjects("us-east-1", V) == f"rq.us-east-1.{V}.>"
    assert cancel_subject(V) == f"nvcf.cancel.{V}"
    assert position_subject(V) == f"nvcf.position.{V}"
