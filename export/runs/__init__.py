"""Run folders, and what a trained network comes with."""
