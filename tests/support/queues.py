"""Subjects of a version's queue, and broker parts on one connection."""

from typing import NamedTuple

from queueing.nats.admin import JetStreamAdmin
from queueing.nats.bus import NatsBus
from queueing.nats.connection import NatsConnection
from queueing.nats.jetstream import StreamSettings
from wire.subjects import queue_subjects


class BrokerParts(NamedTuple):
    """The parts of a `queueing.interface.GatewayBroker` that the control plane uses."""

    admin: JetStreamAdmin
    bus: NatsBus


def broker_on(connection: NatsConnection, region: str = "local") -> BrokerParts:
    """Return administration and bus on ``connection``."""
    return BrokerParts(JetStreamAdmin(connection, [region], StreamSettings()), NatsBus(connection))


def request_subject(region: str, version_id: str, request_id: str) -> str:
    """Return the subject on which one request is published."""
    return queue_subjects(region, version_id).removesuffix(">") + request_id
