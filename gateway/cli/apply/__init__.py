"""``gateway apply``: makes functions, versions and deployments what files say."""
