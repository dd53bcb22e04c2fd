"""The commands of this room: evaluate, robustness, quality, bench and peers."""
