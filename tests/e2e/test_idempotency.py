"""Calls with an Idempotency-Key, through real programs."""

from tests.support.stack import Stack, runs_of


async def test_a_repeated_call_gets_the_response_of_the_first(stack: Stack) -> None:
    gateway, agent = stack.gateway(), stack.agent()
    async with gateway.client() as client:
        first = await client.post("/echo", content=b"abc", headers={"idempotency-key": '"k"'})
        again = await client.post("/echo", content=b"abc", headers={"idempotency-key": "k"})
        other = await client.post("/echo", content=b"abd", headers={"idempotency-key": "k"})
        plain = await client.post("/echo", content=b"abc")
    assert (first.status_code, first.content) == (200, b"abc")
    assert (again.status_code, again.content) == (200, b"abc")
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["nvcf-reqid"] == first.headers["nvcf-reqid"]
    assert (other.status_code, other.json()["reason"]) == (422, "idempotency_key_reused")
    assert plain.headers["nvcf-reqid"] != first.headers["nvcf-reqid"]
    assert await runs_of(agent) == 2
