"""The function queue on NATS JetStream."""
