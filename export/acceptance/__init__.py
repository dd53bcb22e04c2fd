"""Which precisions enter the bundle."""
