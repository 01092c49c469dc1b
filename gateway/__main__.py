"""`gateway`: serves invocations and manages functions, deployments, queues, keys and the store."""

import sys

from runtime import interrupts


def main() -> None:
    """Run the command line of the gateway."""
    interrupts.end_at_once()
    # Only now: Ctrl-C during these imports must not show a traceback.
    if sys.argv[1:2] == ["serve"]:
        from gateway.app import serving  # noqa: PLC0415

        options = serving.read_options(sys.argv[2:])
        if options is not None:
            serving.serve(options)
    from gateway.cli.program import run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
