"""Rewards trained further while alignment runs: refresh, recheck, adopt."""
