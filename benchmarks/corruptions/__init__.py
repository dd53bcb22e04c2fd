"""What pictures do to a bundle: corrupted ones, ones without a lesion, ones with a reference."""
