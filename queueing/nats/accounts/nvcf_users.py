"""Accounts and users for NVIDIA's own workers, which log in through the auth callout. Pure.

They have the rights of our workers (`queueing.nats.accounts.users`) in an account of their own,
with the subjects that their library uses:

    gateway's account                            the account of a version's NVCF workers
    $JS.API.CONSUMER.MSG.NEXT.>   service ────▶  nvcf.js.CONSUMER.MSG.NEXT.<stream>.<consumer>
                                                 ◀── mapped from $JS.API.CONSUMER.MSG.NEXT.…
    $JS.API.CONSUMER.INFO.>       service ────▶  nvcf.js.CONSUMER.INFO.<stream>.<consumer>
                                                 ◀── mapped from $JS.API.CONSUMER.INFO.…
    $JS.ACK.>                     service ────▶  $JS.ACK.<stream>.<consumer>.>
    nvcf.cancel.*                 stream  ────▶  nvcf.cancel.<version>
    nvcf.polling.*.*              stream  ────▶  rq_polling.*
    nvcf.polled.*.>               service ────▶  nvcf.polled.<version>.>

The mapping is there because the server itself responds to ``$JS.API`` of every account: it takes
the message before. A user's permissions are asked for the subject after the mapping (observed with
2.15). The library's reply subjects begin with ``_INBOX.`` and have two or three tokens; the workers
of one version can see each other's, and nobody else's.

The account's key is derived from the operator's, as those of our workers' accounts, and it is
published before a user is signed (`queueing.nats.accounts.callout`).
"""

from collections.abc import Iterable

from queueing.interface import WorkerLogin
from queueing.nats.accounts.jwt import NO_LIMITS, Signer, account_jwt
from queueing.nats.accounts.users import (
    MAX_PAYLOAD_BYTES,
    MAX_SUBSCRIPTIONS,
    WorkerSubjects,
    derived_account,
    exported_subject,
    nvcf_account,
    version_imports,
)
from wire.subjects import polling_subject

_TEMPLATE_AT = 1_796_000_000
"""Unix time of the last change to the content of these accounts: the same in each process."""
_INBOXES = ("_INBOX.*", "_INBOX.*.*", "_INBOX.*.*.*")


class NvcfUsers:
    """Makes these accounts and users; the arguments are those of `WorkerUsers`."""

    def __init__(self, operator_seed: str, gateway_account: str, regions: Iterable[str]) -> None:
        """Raises ValueError when ``operator_seed`` is not an operator's seed."""
        self._operator = Signer.operator(operator_seed)
        self._gateway_account = gateway_account
        self._regions = tuple(regions)

    def account(self, version_id: str, deployment_id: str) -> str:
        """Return the document of a version's account for one deployment."""
        subjects = WorkerSubjects.of(self._regions, version_id)
        imports = version_imports(subjects, self._gateway_account, polling_subject("$1"))
        mappings = {
            exported_subject(subject): [{"subject": subject, "weight": 100}]
            for queue in subjects.queues
            for subject in (queue.next, queue.info)
        }
        return account_jwt(
            self._operator,
            self._signer(version_id).public,
            f"NVCF workers of version {version_id}",
            _TEMPLATE_AT,
            {"imports": imports, "mappings": mappings, "tags": [f"deployment:{deployment_id}"]},
        )

    def account_id(self, version_id: str) -> str:
        """Return the public key of a version's account."""
        return self._signer(version_id).public

    def user(self, worker: WorkerLogin, public_key: str, now: int) -> str:
        """Return the document of a worker whose connection has ``public_key``."""
        subjects = WorkerSubjects.of(self._regions, worker.version_id)
        return self._signer(worker.version_id).sign(
            {
                "sub": public_key,
                "name": worker.name,
                "iat": now,
                "exp": int(worker.expires_at),
                "nats": {
                    "type": "user",
                    "version": 2,
                    **NO_LIMITS,
                    "pub": {"allow": subjects.services},
                    "sub": {"allow": [subjects.cancels, polling_subject("*"), *_INBOXES]},
                    "subs": MAX_SUBSCRIPTIONS,
                    "payload": MAX_PAYLOAD_BYTES,
                    "allowed_connection_types": ["STANDARD"],
                },
            }
        )

    def _signer(self, version_id: str) -> Signer:
        return derived_account(self._operator, nvcf_account(version_id))
