"""The reward card: what is measured on held-out material, and the gate on it."""
