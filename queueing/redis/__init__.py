"""The queue on Redis or Valkey: the second backend of `queueing.interface`."""
