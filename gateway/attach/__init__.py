"""The connection a worker opens back to the process that holds the client."""
