"""The master key, and the encrypted secrets of function versions."""
