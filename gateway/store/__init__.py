"""The store: functions, versions, deployments, accounts, API keys and secrets in NATS or Redis."""
