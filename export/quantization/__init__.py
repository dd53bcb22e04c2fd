"""The graph in other precisions."""
