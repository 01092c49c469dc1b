"""The detached calls of one process, and what depends on them."""

import time
from contextlib import AsyncExitStack

from gateway.app.options import request_limits, webhook_rules
from gateway.dispatch.keyed_calls import KeyedCalls
from gateway.dispatch.polling import FindAssets, PollingPorts, PollingRoutes
from gateway.dispatch.registry import InvocationRegistry
from gateway.dispatch.spool import SpoolFiles
from gateway.objects.interface import ObjectStore
from gateway.requests.book import RequestBook
from gateway.requests.endpoint import Access, RequestsEndpoint
from gateway.requests.events import WatchedPositions
from gateway.requests.exchanges import REQUESTS_PATH
from gateway.requests.forwarding import ForwardedRequests, Forwarder, OnResponse
from gateway.requests.holders import Holders
from gateway.requests.key_claims import KeyClaims, claim_age_s
from gateway.requests.nvcf_paths import POLLING_ROUTES
from gateway.requests.polls import Polls
from gateway.requests.regions import Regions
from gateway.requests.repetition import REPETITIONS_PATH
from gateway.requests.stored import StoredResponses
from gateway.settings import GatewaySettings
from gateway.store.records import Store
from gateway.webhooks.outbox import WebhookOutbox
from queueing.interface import Bus, FunctionQueue
from runtime.lifecycle import Ticker
from runtime.metrics import MetricRegistry

_WINDOWS_TICK_S = 0.1
_HOLDERS_TICK_S = 5.0
SETTLE_S = 20.0
"""The most time for storing what is not stored yet when the process stops."""


class RequestParts:
    """``book`` are the detached calls, ``keyed`` those with keys; ``holders``: other processes."""

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        settings: GatewaySettings,
        store: Store,
        objects: ObjectStore,
        spool: SpoolFiles,
        bus: Bus,
        regions: Regions,
        process: int,
        registry: MetricRegistry,
    ) -> None:
        """``process`` is the number of this process."""
        self.book = RequestBook(
            spool.open,
            time.monotonic,
            request_limits(settings.requests),
            settings.requests.max_calls,
            StoredResponses(objects, settings.requests.retention_s),
            WebhookOutbox(store, webhook_rules(settings.webhooks), registry, time.time),
        )
        self.holders = Holders(bus, store, regions, process)
        self.forwarder = Forwarder(self.holders, self.book)
        self.forwarded = ForwardedRequests(self.holders.secret)
        requests = settings.requests
        claims = store.claims(claim_age_s(requests.retention_s), requests.account_keys)
        self.keyed = KeyedCalls(KeyClaims(claims), self.book, self.forwarder)
        self.forwarded.add(REPETITIONS_PATH, self.keyed.serve_forwarded)

    def endpoint(
        self,
        access: Access,
        queue: FunctionQueue,
        invocations: InvocationRegistry,
        on_response: OnResponse,
    ) -> RequestsEndpoint:
        """Return what serves the routes, also for the requests that other processes forward."""
        endpoint = RequestsEndpoint(
            self.book,
            access,
            WatchedPositions(queue.position, queue.is_stored, invocations.lines.eta_s),
            self.forwarder,
            self.holders.has_lived,
            on_response,
        )
        self.forwarded.add(REQUESTS_PATH, endpoint.serve_forwarded)
        return endpoint

    def polling(
        self, access: Access, find_assets: FindAssets, ports: PollingPorts
    ) -> PollingRoutes:
        """Return what serves NVCF's polling routes, also polls that other processes forward."""
        polls = Polls(self.book, access, self.forwarder, self.holders.has_lived)
        routes = PollingRoutes(self.book, polls, self.keyed, access, find_assets, ports)
        for prefix in POLLING_ROUTES:
            self.forwarded.add(prefix, routes.serve_forwarded)
        return routes

    def open(self, stack: AsyncExitStack, attach_uri: str) -> None:
        """Serve other processes from now on, for the life of ``stack``."""
        self.holders.start(attach_uri)
        stack.callback(self.holders.close)
        for every_s, tick in (
            (_WINDOWS_TICK_S, self.book.tick),
            (_HOLDERS_TICK_S, self.holders.tick),
        ):
            ticker = Ticker(every_s, tick)
            ticker.start()
            stack.callback(ticker.stop)
