"""One pass over the validation part, and how two graphs compare on it."""

RESAMPLES = 1000  # of each bootstrap
