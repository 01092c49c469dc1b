"""What a worker does for clients of NVCF's polling routes (``docs/wire.md`` §8.8)."""
