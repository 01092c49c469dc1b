"""HTTP/2 as a client: one connection to a server, many requests on it."""
