"""Calls with keys while parts are killed: a few seconds of `tests.chaos.keyed`, of fixed seeds."""

import pytest

from tests.chaos.keyed import run_and_check

DURATION_S = 7.0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("store", "seed"), [("nats", 1), ("valkey", 2)])
async def test_no_key_runs_twice_while_gateways_workers_and_the_store_are_killed(
    store: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    violations = await run_and_check(store, seed, DURATION_S)
    assert not violations, "\n".join([capsys.readouterr().out, *violations])
