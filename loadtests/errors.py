"""The one way a measurement fails."""


class MeasurementError(Exception):
    """Errors, wrong answers or a stall during a measurement: it has no figures."""
