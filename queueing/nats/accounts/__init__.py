"""NATS accounts and logins of workers (decentralised JWTs)."""
