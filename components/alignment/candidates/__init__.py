"""From prompts to preference pairs: sample candidates, score them, pair best and worst."""
