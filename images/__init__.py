"""The container images: one per step family over a shared base; see README.md. Run as `python -m images`."""
