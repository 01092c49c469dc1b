"""The error of a failed measurement."""


class MeasurementError(Exception):
    """An error, a wrong response or a stall during a measurement, which then has no figures."""
