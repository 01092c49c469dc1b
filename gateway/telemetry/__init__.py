"""What the gateway shows of itself: health, metrics, the access log."""
