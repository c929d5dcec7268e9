"""What an alignment takes of GPUs, before one is rented."""
