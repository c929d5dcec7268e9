"""What would go wrong on a cluster, found before submission."""
