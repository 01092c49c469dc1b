"""Where a request turns: to an invocation, an attach exchange, the REST API or an endpoint."""
