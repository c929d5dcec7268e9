"""Pristine clips and prompts, split by content: the built-in world, packaged footage, the user's own."""
