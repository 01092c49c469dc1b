"""The peers that the gateway is compared with, and the inference server behind all of them."""
