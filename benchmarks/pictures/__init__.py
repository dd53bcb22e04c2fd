"""What pictures do to a bundle: spoilt ones, ones without a lesion, ones with a card or ruler."""
