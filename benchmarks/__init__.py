"""How good and how fast a bundle is."""

PROCEDURAL = "trained on generated pictures: not for real skin"
