"""Features of a clip that the network reads."""
