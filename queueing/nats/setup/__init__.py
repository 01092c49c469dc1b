"""Setting up NATS servers for the gateway: their files, the rotation of keys, and a check."""
