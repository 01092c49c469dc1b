"""The life of one invocation."""
