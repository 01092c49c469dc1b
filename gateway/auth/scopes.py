"""Scopes: the permissions that a credential can carry (`docs/wire.md` §15.3)."""

from gateway.domain.principal import INVOKE

SETUP = "account_setup"
"""Make and revoke keys of the own account, change its name."""
ADMIN = "admin:"
"""Prefix that extends an account scope to every account. API keys and the gateway's own tokens
cannot have such scopes, except `ADMIN_SETUP`: the JWT issuer appoints super administrators."""
ADMIN_SETUP = f"{ADMIN}{SETUP}"
"""Create, change and delete any account, and associate clients with it. API keys cannot have it; of
the gateway's own tokens, the default account's admin token has it."""
BOOTSTRAP = "bootstrap"
"""Mint admin tokens. The only scope of the bootstrap secret."""
WORKER = "worker"
"""Connect as one instance of one version, or register as one."""

RESERVED = frozenset({BOOTSTRAP, WORKER})
"""Scopes that only the gateway itself can give; they are dropped from an issuer's JWT."""

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
"""Scopes that an API key can have; each concerns the key's own account only."""

ADMIN_TOKEN_SCOPES = ACCOUNT_SCOPES | {"cluster-management"}
"""Scopes of an admin token: everything in one account."""
