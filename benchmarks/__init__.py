"""How good and how fast a bundle is."""

from __future__ import annotations

from dermedge.cli import call

__all__ = ["PROCEDURAL", "call"]

PROCEDURAL = "trained on generated pictures: not for real skin"
