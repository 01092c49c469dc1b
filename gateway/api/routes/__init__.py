"""The REST routes, one module for each resource.

A new route is added to its module's ``ROUTES``, and a new module's ``ROUTES`` to those of
`gateway.api.app`, which explains the steps.
"""
