"""Base and aligned side by side: measure, compare, decide."""
