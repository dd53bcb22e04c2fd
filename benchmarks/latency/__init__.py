"""How fast a bundle is on this device, and what memory and energy it takes."""
