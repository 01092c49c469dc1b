"""The settings of the queue, in both programs."""

import pytest

from queueing.open import broker_name
from queueing.settings import GatewayBrokerSettings, WorkerBrokerSettings
from runtime.settings import SettingsError, load

Settings = type[GatewayBrokerSettings] | type[WorkerBrokerSettings]
BOTH = pytest.mark.parametrize("model", [GatewayBrokerSettings, WorkerBrokerSettings])


@BOTH
def test_the_backend_is_chosen_by_name(model: Settings) -> None:
    assert broker_name(load(model, None, "P", environ={})) == "NATS"
    assert broker_name(load(model, None, "P", environ={"P_QUEUE__BACKEND": "redis"})) == "Redis"


@BOTH
def test_a_redis_url_that_is_none_is_named_and_not_shown(model: Settings) -> None:
    with pytest.raises(SettingsError) as refused:
        load(model, None, "P", environ={"P_REDIS__URLS": "redis://a,redis://me:secret@b/1"})
    (problem,) = refused.value.problems
    assert problem.startswith("redis.urls.1: names another database than 0")
    assert "secret" not in problem
