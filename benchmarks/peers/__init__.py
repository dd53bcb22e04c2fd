"""A bundle's networks beside other runtimes, and beside torch with torchvision.

The only module of this room that needs torch, and that knows `train` and `export`.
"""
