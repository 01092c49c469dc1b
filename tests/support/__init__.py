"""Code shared by the test folders: servers, harnesses, recording ports, the wait helper."""
