"""Clips in memory: decode, encode, resample, follow motion, lay out for people."""
