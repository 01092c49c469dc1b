"""The life of one invocation, as a pure state machine: no I/O, no clock."""
