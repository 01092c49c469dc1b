"""`worker-agent`: pulls requests from a queue and forwards them to the inference server."""

from runtime import interrupts


def main() -> None:
    """Run the command line of the worker agent."""
    interrupts.end_at_once()
    # Only now: Ctrl-C during these imports must not show a traceback.
    from worker_agent.app.program import run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
