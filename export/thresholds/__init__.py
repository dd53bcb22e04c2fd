"""Where numbers become decisions."""
