"""Load tests: the gateway compared with its peers, in one run on one machine. See README.md."""
