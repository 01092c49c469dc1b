"""Three regions: a network each, with a NATS server, a gateway and two workers.

The networks are linked: a region is cut off from the others, and its clients still reach it.
"""

from pathlib import Path

from queueing.nats.admin import JetStreamAdmin
from queueing.nats.jetstream import StreamSettings
from tests.chaos.history import Layout
from tests.chaos.machines import AGENTS, GATEWAYS, NODES, ClusterWorld
from tests.chaos.world import BACK, LEASE_S, MAX_CONCURRENCY
from tests.support.network import Network
from tests.support.queue_harness import connected
from tests.support.stack import Demo

REGIONS = ("eu", "us", "ap")
FUNCTION = "function-1"
LAYOUT = Layout(
    gateways=GATEWAYS,
    shared=(),
    agents={FUNCTION: AGENTS},
    servers={agent: agent.replace("agent", "inference") for agent in AGENTS},
    max_concurrency=MAX_CONCURRENCY,
    broker=NODES[0],
    spares=NODES[1:],
)
TAG = "region"
_PARTS = {
    region: (NODES[i], GATEWAYS[i], *AGENTS[2 * i : 2 * i + 2]) for i, region in enumerate(REGIONS)
}


def region_of(name: str) -> str:
    """Return the region of a part."""
    agent = name.replace("inference", "agent")
    return next(region for region, parts in _PARTS.items() if agent in parts)


def gateway_of(region: str) -> str:
    """Return the gateway of a region."""
    return GATEWAYS[REGIONS.index(region)]


class RegionsWorld(ClusterWorld):
    """All parts by name, and the network of each region."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LAYOUT)
        self.regions: dict[str, Network] = {}

    async def stop(self) -> None:
        await super().stop()
        for network in self.regions.values():
            network.close()

    def cut_off(self, region: str) -> None:
        """Let a region reach no other one from now on."""
        uplink = self.regions[region].uplink
        assert uplink is not None
        uplink.cut()

    def restore(self, region: str) -> None:
        """Link a region to the others again."""
        uplink = self.regions[region].uplink
        assert uplink is not None
        uplink.restore()

    async def _start_broker(self) -> None:
        self.regions = {region: Network(within=self._networks[BACK]) for region in REGIONS}
        await super()._start_broker()

    def _server_config(self, node: str) -> str:
        return f'{super()._server_config(node)}server_tags: ["{TAG}:{region_of(node)}"]\n'

    def _switch(self, name: str, network: str) -> Network:
        return self.regions[region_of(name)] if network == BACK else super()._switch(name, network)

    async def _register(self) -> Demo:
        """Register a function, and make its queues, as the API does when a worker connects."""
        demo = await super()._register()
        streams = StreamSettings(ack_wait_s=LEASE_S, region_tag=TAG, max_deliver=10_000)
        async with connected(self.url(NODES[0])) as connection:
            await JetStreamAdmin(connection, REGIONS, streams).ensure(demo.version_id)
        return demo

    def _settings_of(self, name: str) -> dict[str, str]:
        region = region_of(name)
        settings = super()._settings_of(name) | {
            "NATS__URLS": self.url(_PARTS[region][0]),
            "QUEUE__REGION": region,
            "QUEUE__OTHER_REGIONS": ",".join(other for other in REGIONS if other != region),
        }
        if name in GATEWAYS:
            settings |= {
                "NATS__REGION_TAG": TAG,
                "QUEUE__REPLICAS": "1",
                "OBJECTS__FOLDER": str(self._folder / "objects"),
            }
        return settings
