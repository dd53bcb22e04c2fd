"""How right a bundle is: its figures on a part of a data set, with intervals, and their tables."""
