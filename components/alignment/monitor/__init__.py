"""What watches a run of alignment: guards, and the judge on held-out prompts."""
