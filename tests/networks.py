"""What several tests know of the registered networks."""

# Classifiers with a hidden layer behind the pooling: no score of theirs belongs to a position.
HIDDEN_LAYER = ("mobilenet_v3_small", "mobilenet_v3_large", "mobilenet_v4_conv_small")
