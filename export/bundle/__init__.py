"""Manifest and parts."""
