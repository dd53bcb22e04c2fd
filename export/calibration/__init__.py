"""What a network learnt from, and how sure it may be."""
