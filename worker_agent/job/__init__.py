"""The life of one leased request, as a pure state machine: no I/O, no clock."""
