"""`worker-agent`: pulls requests from a queue and forwards them to the inference server."""

import sys

from runtime import interrupts


def main() -> None:
    """Run the command line of the worker agent."""
    interrupts.end_at_once()
    # Only now: Ctrl-C during these imports must not show a traceback.
    from worker_agent.app import serving  # noqa: PLC0415

    options = serving.read_options(sys.argv[1:])
    if options is not None:
        serving.serve(options)
    from worker_agent.app.program import run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
