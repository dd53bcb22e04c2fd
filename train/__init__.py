import dermedge  # noqa: F401  # nothing is imported before it: see dermedge.telemetry
