"""The life of one leased request: pure, no I/O, no clock."""
