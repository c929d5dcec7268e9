"""MLflow: one client, one retry policy, one run a step."""
