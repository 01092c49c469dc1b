"""The connection a worker opens back to the process that holds the client."""

PATH = b"/v2/nvcf/worker/request-attach"
