"""The system under load while its parts are killed, paused and cut off; its history is checked."""
