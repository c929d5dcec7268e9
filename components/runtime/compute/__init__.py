"""Devices, processes, signals, seeds."""
