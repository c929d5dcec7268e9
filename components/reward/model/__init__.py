"""The network of the reward, the pretrained backbone behind it, its losses and its training."""
