"""What runs when a pipeline ends, however it ends."""
