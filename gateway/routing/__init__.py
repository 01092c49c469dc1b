"""From a request head to a caller and the function version to invoke."""
