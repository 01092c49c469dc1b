"""What a worker's problem document says of the function."""

import pytest

from gateway.attach.faults import outcome_of_document
from gateway.invocation.states import Outcome

PROBLEM = [(b"content-type", b"application/problem+json")]


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("inference-connection", Outcome.INFERENCE_LOST),
        ("inference-service", Outcome.INFERENCE_INVALID),
        ("nvcf-worker-service", Outcome.WORKER_FAILED),
        ("nvcf", Outcome.ANSWERED),
    ],
)
def test_the_source_of_a_document_tells_what_failed(source: str, outcome: Outcome) -> None:
    for blank in ("", " "):
        document = f'{{{blank}"type":{blank}"urn:{source}:problem-details:internal-server-error"}}'
        assert outcome_of_document(PROBLEM, document.encode()) is outcome


def test_another_content_type_is_the_functions_own_answer() -> None:
    document = b'{"type":"urn:inference-connection:problem-details:x"}'
    assert outcome_of_document([(b"content-type", b"application/json")], document) is (
        Outcome.ANSWERED
    )
