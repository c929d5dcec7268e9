"""The video-quality reward: distort clips, learn the order of the damage, score any clip."""
