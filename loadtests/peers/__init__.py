"""What the gateway is measured against, and the inference server behind all of them."""
