"""What requests ask of NVIDIA's control plane: URLs for large responses, new URLs of assets.

Our gateway processes answer such questions themselves (`docs/wire.md` §5.6); NVIDIA's do not.
"""

import time

from wire.decoded_envelope import Envelope, InputAssetReference, decode_control_urls
from worker_agent.compat.transfers import ResponseUrls, TransferError
from worker_agent.nvcf.calls import NvcfCallError, NvcfCalls

_FRESH_S = 1800.0
"""Age of a request up to which the URLs in its envelope are used."""


class NvcfObjectUrls:
    """A `worker_agent.compat.transfers.ObjectUrls`."""

    def __init__(self, calls: NvcfCalls) -> None:
        self._calls = calls

    async def response_urls(self, envelope: Envelope, data: bytes) -> ResponseUrls:
        """Return where the response of a request is put, and from where its client gets it.

        ``data`` is the envelope as it came, empty for a call of a channel. Raises `TransferError`.
        """
        urls = decode_control_urls(data)
        request_id = envelope.request_id
        try:
            download = await self._calls.large_download_url(request_id, envelope.nca_id)
            upload = urls.large_response if _is_fresh(envelope) else ""
            if not upload:
                upload = await self._calls.large_upload_url(request_id, urls.control_plane)
        except NvcfCallError as error:
            raise TransferError(str(error)) from error
        return ResponseUrls(upload, download)

    async def assets(self, envelope: Envelope, data: bytes) -> tuple[InputAssetReference, ...]:
        """Return the input assets of a request, with new URLs if it is old.

        Raises `TransferError`.
        """
        assets = envelope.head.assets
        if not assets or _is_fresh(envelope):
            return assets
        try:
            found = await self._calls.assets(
                envelope.request_id,
                [one.asset_id for one in assets],
                decode_control_urls(data).control_plane,
            )
        except NvcfCallError as error:
            raise TransferError(str(error)) from error
        if {one.asset_id for one in found} != {one.asset_id for one in assets}:
            raise TransferError("the control plane has not renewed every asset's URL")
        return found


def _is_fresh(envelope: Envelope) -> bool:
    return time.time() - envelope.requested_at_ns * 1e-9 < _FRESH_S
