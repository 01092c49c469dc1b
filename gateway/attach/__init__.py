"""The connections that a worker opens to the gateway process which holds the client."""

PATH = b"/v2/nvcf/worker/request-attach"
