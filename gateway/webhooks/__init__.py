"""Webhooks: the ends of detached calls, told to URLs that the callers named."""
