"""What gateway and worker agent agree on: names, formats and limits of everything they exchange."""
