"""The domain: records of functions, versions, deployments, accounts and keys, and their rules."""
