"""Who calls what."""

from gateway.domain.model import FunctionVersion


class Caller:
    """Who calls what: the part of an invocation that access and routing decided."""

    __slots__ = ("account", "poll_s", "subject", "version")

    def __init__(self, account: str, subject: str, version: FunctionVersion, poll_s: int) -> None:
        self.account = account
        self.subject = subject
        self.version = version
        self.poll_s = poll_s
