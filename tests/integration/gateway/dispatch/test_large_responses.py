"""The URLs for a large response, of a real object store."""

import json
from pathlib import Path

from gateway.dispatch.large_responses import LargeResponses
from gateway.objects.assets import account_folder
from gateway.objects.large_responses import PREFIX, LargeResponseObjects
from http1.stream import Request
from tests.support.invocation_world import REQUEST_ID, World
from tests.support.objects import NOW, local_objects, signer
from tests.support.recorder import RecordedResponseWriter
from tests.support.waiting import until
from wire.worker_api import LARGE_RESPONSE_PATH


async def test_a_worker_gets_a_url_to_write_and_one_for_its_client(tmp_path: Path) -> None:
    world, urls = World().publish(), signer()
    store = local_objects(tmp_path, urls)
    large = LargeResponses(
        LargeResponseObjects(store, max_bytes=1000, lifetime_s=60.0, clock=lambda: NOW)
    )
    worker = RecordedResponseWriter(world.script, "worker")
    headers = [(b"host", b"10.0.0.1:8090")]
    request = Request(b"POST", LARGE_RESPONSE_PATH, b"10.0.0.1", headers, 0, 0.0, b"10.0.0.1:8090")
    large.serve(request, worker, world.invocation)
    await until(lambda: worker.sent)
    document = json.loads(worker.sent)
    assert worker.head is not None
    assert worker.head[0] == 200
    upload, download = document["uploadUrl"], document["downloadUrl"]
    assert upload.startswith("http://10.0.0.1:8090/")
    target = upload.removeprefix("http://10.0.0.1:8090").encode()
    permitted = await urls.check_upload(target, {b"content-type": b"application/zip"})
    account = world.invocation.account
    assert permitted.key == f"{account_folder(PREFIX, account)}{REQUEST_ID}"
    assert permitted.max_bytes == 1000
    assert not download.startswith("http://10.0.0.1:8090/")
    start = download.index("/v2/")
    assert (await urls.check_download(download[start:].encode())).key == permitted.key


async def test_nothing_is_sent_to_a_worker_that_has_gone(tmp_path: Path) -> None:
    world = World().publish()
    store = local_objects(tmp_path)
    large = LargeResponses(
        LargeResponseObjects(store, max_bytes=0, lifetime_s=60.0, clock=lambda: NOW)
    )
    worker = RecordedResponseWriter(world.script, "worker")
    request = Request(b"POST", LARGE_RESPONSE_PATH, b"gateway", [], 0, 0.0, b"gateway")
    large.serve(request, worker, world.invocation).request_broken()
    await large.urls_for(world.invocation, "http://gateway")
    assert worker.head is None
