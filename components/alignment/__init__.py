"""Online DPO: the policy generates, the reward ranks, the best and worst of a prompt become a pair."""
