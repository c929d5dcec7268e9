"""Memory and time of an alignment, before a GPU is rented."""
