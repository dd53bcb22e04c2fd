"""Asking a person about the pictures that the model doubts: a page on this machine alone."""
