"""The base text-to-video model: families over diffusers, sampling, and the miniature that ships with it."""
