"""What runs inside a container around a step."""
