"""How fast a bundle is on this device, what memory and energy it takes, and other devices."""
