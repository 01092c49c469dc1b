"""Wiring: one gateway process, made from settings."""
