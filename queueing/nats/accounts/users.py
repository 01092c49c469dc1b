"""NATS permissions: the gateway has all of its own account, a worker only its version's queue.

The workers of each version have an account of their own. Permissions alone do not isolate tenants:
JetStream sends its responses as the server, to any reply subject in a request. In a shared account,
a worker with permission only to pull and to acknowledge can delete a stream, write to a bucket or
add a request to another tenant's queue in this way (observed with nats-server 2.15). A response
that leaves the account can only go back to the requester.

The queues are therefore in the gateway's account, which exports the subjects that workers need; the
account of a version imports those of its own streams, one in each region, and the worker's user is
limited to these and to its own inbox:

    gateway's account                            a version's account
    $JS.API.CONSUMER.MSG.NEXT.>   service ────▶  nvcf.js.CONSUMER.MSG.NEXT.<stream>.<consumer>
    $JS.API.CONSUMER.INFO.>       service ────▶  nvcf.js.CONSUMER.INFO.<stream>.<consumer>
    $JS.ACK.>                     service ────▶  $JS.ACK.<stream>.<consumer>.>
    nvcf.cancel.*                 stream  ────▶  nvcf.cancel.<version>
    nvcf.polling.*.*              stream  ────▶  nvcf.polling.<version>.*
    nvcf.polled.*.>               service ────▶  nvcf.polled.<version>.>

The prefix differs because the server itself responds to ``$JS.API`` of every account, here with
"not enabled".

The key of a version's account is derived from the operator's key: nothing has to be stored, and all
gateway processes make the same document for one deployment, which changes nothing when it is
published again. The document of the next deployment differs: a server that has deleted an account
ignores the same document and keeps the account closed (observed with 2.15). The server must have
the document before a worker logs in (`queueing.nats.accounts.credentials`). Only holders of the
operator's key can make accounts that import.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from queueing.nats.accounts.jwt import Role, Signer, UserCredentials, account_jwt, user_credentials
from wire.subjects import (
    cancel_subject,
    consumer_name,
    polled_subject,
    scoped_polling_subject,
    stream_name,
    worker_inbox,
)
from wire.worker_api import MAX_CONCURRENCY

_TEMPLATE_AT = 1_796_000_000
"""Unix time of the last change to the content of versions' accounts: the same in each process."""
MAX_SUBSCRIPTIONS = MAX_CONCURRENCY + 64
"""A worker subscribes to the polls of every request that it has answered with 202."""
MAX_PAYLOAD_BYTES = 65_536
WORKER_API = "nvcf.js"
"""The prefix of JetStream's API subjects in accounts of versions."""
EXPORTED_API = "$JS.API"
_NEXT = "CONSUMER.MSG.NEXT"
_INFO = "CONSUMER.INFO"
_ACK = "$JS.ACK"
CLAIMS_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"
CLAIMS_DELETE = "$SYS.REQ.CLAIMS.DELETE"
CLAIMS_LOOKUP = "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP"
SERVER_SETTINGS = "$SYS.REQ.SERVER.PING.VARZ"
"""Every server responds to it, with its version, limits and settings."""
CONNECTIONS = "$SYS.REQ.ACCOUNT.*.CONNZ"
KICK = "$SYS.REQ.SERVER.*.KICK"


def derived_account(operator: Signer, name: str) -> Signer:
    """Return the key of the account with this name, derived from the operator's."""
    return Signer.of(Role.ACCOUNT, hmac.digest(operator.seed.encode(), name.encode(), "sha256"))


def version_account(version_id: str) -> str:
    """Return the name for `derived_account` of the account of a version's workers."""
    return f"account of version {version_id}"


def nvcf_account(version_id: str) -> str:
    """Return the same for its workers of NVCF (`queueing.nats.accounts.nvcf_users`)."""
    return f"account of NVCF workers of version {version_id}"


_ACCOUNT_NAMES = (version_account, nvcf_account)


class QueueSubjects(NamedTuple):
    """The subjects of one queue, as they are in the account of its version."""

    next: str
    info: str
    acks: str

    @classmethod
    def of(cls, region: str, version_id: str) -> "QueueSubjects":
        stream = stream_name(region, version_id)
        consumer = f"{stream}.{consumer_name(stream)}"
        return cls(
            f"{WORKER_API}.{_NEXT}.{consumer}",
            f"{WORKER_API}.{_INFO}.{consumer}",
            f"{_ACK}.{consumer}.>",
        )


class WorkerSubjects(NamedTuple):
    """The subjects for the workers of one version, as they are in its account."""

    queues: tuple[QueueSubjects, ...]
    cancels: str
    polls: str
    receipts: str

    @classmethod
    def of(cls, regions: Iterable[str], version_id: str) -> "WorkerSubjects":
        """Return them in the same order in each region."""
        return cls(
            tuple(QueueSubjects.of(region, version_id) for region in sorted(regions)),
            cancel_subject(version_id),
            scoped_polling_subject(version_id, "*"),
            polled_subject(version_id, ">"),
        )

    @property
    def services(self) -> list[str]:
        """What a worker publishes to."""
        return [*(subject for queue in self.queues for subject in queue), self.receipts]

    @property
    def streams(self) -> list[str]:
        """What a worker subscribes to, beside its inbox."""
        return [self.cancels, self.polls]


def version_imports(
    subjects: WorkerSubjects, gateway_account: str, polls: str
) -> list[dict[str, str]]:
    """Return what a version's account imports; the polls are at ``polls`` in it."""
    return [
        {
            "name": name,
            "subject": exported_subject(name),
            "local_subject": local,
            "account": gateway_account,
            "type": kind,
        }
        for name, local, kind in (
            *((subject, subject, "service") for queue in subjects.queues for subject in queue),
            (subjects.cancels, subjects.cancels, "stream"),
            (subjects.polls, polls, "stream"),
            (subjects.receipts, subjects.receipts, "service"),
        )
    ]


def exported_subject(subject: str) -> str:
    """Return a subject of a version's account as the gateway's account exports it."""
    return subject.replace(WORKER_API, EXPORTED_API, 1)


class WorkerUsers:
    """Makes accounts of versions and users of workers.

    ``operator_seed`` may be that of a signing key of the operator. ``gateway_account`` is the
    public key of the account that has the queues. ``regions`` are all of the installation.
    """

    def __init__(self, operator_seed: str, gateway_account: str, regions: Iterable[str]) -> None:
        """Raises ValueError when ``operator_seed`` is not an operator's seed."""
        self._operator = Signer.operator(operator_seed)
        self._gateway_account = gateway_account
        self._regions = tuple(regions)

    def account(self, version_id: str, deployment_id: str) -> str:
        """Return the document of a version's account for one deployment."""
        subjects = WorkerSubjects.of(self._regions, version_id)
        imports = version_imports(subjects, self._gateway_account, subjects.polls)
        return account_jwt(
            self._operator,
            self._signer(version_id).public,
            f"version {version_id}",
            _TEMPLATE_AT,
            {"imports": imports, "tags": [f"deployment:{deployment_id}"]},
        )

    def removal(self, version_ids: list[str], now: int) -> str:
        """Return the order to delete accounts of versions, which ends their connections."""
        names = [name(version_id) for version_id in version_ids for name in _ACCOUNT_NAMES]
        accounts = [derived_account(self._operator, name).public for name in names]
        return self._operator.sign(
            {
                "sub": self._operator.public,
                "iat": now,
                "nats": {"type": "generic", "version": 2, "accounts": accounts},
            }
        )

    def worker(
        self, version_id: str, instance_id: str, random32: bytes, now: int, expires_at: int
    ) -> UserCredentials:
        """Return a worker's credentials; times are Unix seconds."""
        subjects = WorkerSubjects.of(self._regions, version_id)
        inbox = worker_inbox(version_id, instance_id)
        content = {
            "pub": {"allow": subjects.services},
            "sub": {"allow": [*subjects.streams, f"{inbox}.>"]},
            "subs": MAX_SUBSCRIPTIONS,
            "payload": MAX_PAYLOAD_BYTES,
            "allowed_connection_types": ["STANDARD"],
        }
        name = f"worker {version_id} {instance_id}"
        return user_credentials(self._signer(version_id), name, random32, content, now, expires_at)

    def _signer(self, version_id: str) -> Signer:
        return derived_account(self._operator, version_account(version_id))


def gateway_account(
    operator: Signer,
    account: str,
    now: int,
    signing_keys: Sequence[str] = (),
    revocations: Mapping[str, int] | None = None,
) -> str:
    """Return the document of the account with the queues and the store.

    ``signing_keys`` may sign its users in its place. ``revocations`` are public keys of users, with
    the Unix time up to which their documents are not accepted any more.
    """
    limits = {
        "subs": -1,
        "data": -1,
        "payload": -1,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": -1,
        "mem_storage": -1,
        "disk_storage": -1,
        "streams": -1,
        "consumer": -1,
    }
    exports = [
        {
            "name": "next",
            "subject": f"{EXPORTED_API}.{_NEXT}.>",
            "type": "service",
            "response_type": "Stream",
        },
        {
            "name": "info",
            "subject": f"{EXPORTED_API}.{_INFO}.>",
            "type": "service",
            "response_type": "Singleton",
        },
        {"name": "acks", "subject": f"{_ACK}.>", "type": "service", "response_type": "Singleton"},
        {"name": "cancels", "subject": cancel_subject("*"), "type": "stream"},
        {"name": "polls", "subject": scoped_polling_subject("*", "*"), "type": "stream"},
        {
            "name": "receipts",
            "subject": polled_subject("*", ">"),
            "type": "service",
            "response_type": "Singleton",
        },
    ]
    content: dict[str, object] = {"limits": limits, "exports": exports}
    if signing_keys:
        content["signing_keys"] = list(signing_keys)
    if revocations:
        content["revocations"] = dict(revocations)
    return account_jwt(operator, account, "gateway", now, content)


def gateway_user(
    account: Signer, random32: bytes, now: int, issuer_account: str = ""
) -> UserCredentials:
    """Return a user with all permissions in its account; it does not expire.

    If ``account`` is a signing key, ``issuer_account`` is the account's own public key.
    """
    content = {"issuer_account": issuer_account} if issuer_account else {}
    return user_credentials(account, "gateway", random32, content, now)


def system_user(system: Signer, random32: bytes, now: int) -> UserCredentials:
    """Return a user of the system account that may change accounts, see and end connections.

    It may also read accounts and how the servers are set up, for `gateway nats check`.
    """
    allowed = [CLAIMS_UPDATE, CLAIMS_DELETE, CLAIMS_LOOKUP, SERVER_SETTINGS, CONNECTIONS, KICK]
    content = {
        "pub": {"allow": allowed},
        "sub": {"allow": ["_INBOX.>"]},
    }
    return user_credentials(system, "gateway-accounts", random32, content, now)
