"""How good and how fast a bundle is."""

from dermedge.cli import script

PROCEDURAL = "trained on generated pictures: not for real skin"
call = script
