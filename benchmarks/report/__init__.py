"""What people read of the figures: the pages of `dermedge bench`, plots, and the models' cards."""
