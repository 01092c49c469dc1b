"""What credentials may allow (`spec/control-plane.md` §6.3)."""

from gateway.domain.principal import INVOKE

SETUP = "account_setup"
"""Make and revoke the account's keys, change its name."""
ADMIN = "admin:"
"""Before a scope of an account: the same for every account. No key can have it, and no token of the
gateway but for the next one: the issuer of JWTs says who is a super administrator."""
ADMIN_SETUP = f"{ADMIN}{SETUP}"
"""Make, change and delete any account, and say which clients act for it. No key can have it; of the
gateway's tokens the default account's has it."""
BOOTSTRAP = "bootstrap"
"""Mint admin tokens: what the bootstrap secret is good for, and nothing else."""
WORKER = "worker"
"""Connect as one instance of one version."""

RESERVED = frozenset({BOOTSTRAP, WORKER})
"""What no other issuer can give."""

ACCOUNT_SCOPES = frozenset(
    {
        "register_function",
        "update_function",
        "delete_function",
        "deploy_function",
        "list_functions",
        "list_functions_details",
        INVOKE,
        "queue_details",
        "authorize_clients",
        "update_secrets",
        "manage_telemetries",
        "manage_registry_credentials",
        "list_cluster_groups",
        SETUP,
    }
)
"""What an API key may have. All of it concerns the key's own account."""

ADMIN_TOKEN_SCOPES = ACCOUNT_SCOPES | {"cluster-management"}
"""Everything in one account."""
