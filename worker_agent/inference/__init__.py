"""The local inference server: sending requests to it, and probing its health."""
