"""Sockets in: listeners and HTTP protocols."""
