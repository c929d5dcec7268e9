"""Dimensions: what is measured of a video, one file for each kind of measurement."""
