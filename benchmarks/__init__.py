"""How good and how fast a bundle is."""

import dermedge  # noqa: F401  # nothing is imported before it: see dermedge.telemetry

PROCEDURAL = "trained on generated pictures: not for real skin"
