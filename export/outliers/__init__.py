"""What tells pictures without a lesion from others: outliers, a head that is fitted, its limit."""
