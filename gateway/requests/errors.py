"""The errors of detached calls."""

from typing import Self

from gateway.errors import BadRequest, ClientFault, NotFound, PlatformFault
from wire.problem import NO_RETRY

_RETRY_SOON = ((b"retry-after", b"1"),)


class RequestNotFound(NotFound):
    """The id is not that of a request of the caller's account, or its response is kept no more."""

    kind = "request-not-found"
    reason = "request_not_found"
    summary = "No request of this account has this id, or it is kept no longer"


class NotDetachable(BadRequest):
    """The call cannot outlive its connection."""

    kind = "not-detachable"
    reason = "not_detachable"
    summary = "WebSocket and gRPC calls cannot be detached"


class HolderLost(ClientFault):
    """The gateway process that held the call is gone, and the call with it."""

    status = 410
    kind = "holder-lost"
    reason = "holder_lost"
    summary = "The gateway process that held the request is gone, and stored no response"


class HolderSilent(PlatformFault):
    """The gateway process that holds the call, or held it, does not respond, and may yet."""

    status = 503
    kind = "holder-silent"
    reason = "holder_silent"
    summary = "The gateway process that holds the request does not respond"
    always = _RETRY_SOON


class Misdirected(ClientFault):
    """Another process was meant: it listened at this address before (RFC 9110 §15.5.20)."""

    status = 421
    kind = "misdirected"
    summary = "Another gateway process was meant"


class CallCancelled(ClientFault):
    """The call was cancelled."""

    status = 410
    kind = "cancelled"
    reason = "cancelled"
    summary = "The request was cancelled"


class TooManyFollowers(ClientFault):
    """As many clients follow the call's response as may at the same time."""

    status = 429
    kind = "too-many-followers"
    reason = "too_many_followers"
    summary = "Too many clients follow this response"
    always = _RETRY_SOON


class TooManyDetachedCalls(PlatformFault):
    """The process holds as many detached calls as it may."""

    status = 503
    kind = "too-many-detached-calls"
    reason = "too_many_detached_calls"
    summary = "This process holds as many detached calls as it may"
    always = _RETRY_SOON


class StorageQuota(ClientFault):
    """The account's stored responses take as many bytes as they may."""

    status = 429
    kind = "storage-quota"
    reason = "storage_quota"
    summary = "The account's stored responses take as many bytes as they may; delete some"
    always = (NO_RETRY,)


class ResponseTooLarge(PlatformFault):
    """The response is longer than what is kept of one, or of an account's."""

    status = 507
    kind = "response-too-large"
    reason = "response_too_large"
    summary = "The response is too large to be kept"
    always = (NO_RETRY,)

    @classmethod
    def above(cls, max_bytes: int) -> Self:
        """Return the error for a response of more than ``max_bytes``."""
        return cls(f"The response has more than {max_bytes} bytes, and was not kept")

    @classmethod
    def of_account(cls, max_bytes: int) -> Self:
        """Return the error for an account with more than ``max_bytes``."""
        return cls(f"The account's stored responses have more than {max_bytes} bytes")


class SpoolFailed(PlatformFault):
    """The disk of the process did not take the response."""

    status = 507
    kind = "spool-failed"
    reason = "spool_failed"
    summary = "The response could not be kept: the disk of the gateway process failed"
    always = (NO_RETRY,)


class CallTooLong(PlatformFault):
    """The call has lasted for as long as a call may."""

    status = 504
    kind = "too-long"
    reason = "too_long"
    summary = "The call has lasted for as long as a call may"
    always = (NO_RETRY,)
