"""`gateway`: serves invocations and manages functions, deployments, queues, keys and the store."""

from runtime import interrupts


def main() -> None:
    """Run the command line of the gateway."""
    interrupts.end_at_once()
    # Only now: Ctrl-C during these imports must not show a traceback.
    from gateway.cli.program import run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
