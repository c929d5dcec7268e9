"""Rewards that were not trained here, behind the interface of the one that was."""
