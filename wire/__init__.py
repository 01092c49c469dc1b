"""What gateway and worker agent agree on."""
