"""The connections that a worker opens to the gateway process which holds the client."""
