"""The loop, optimisers, schedules, checkpoints, the budget and the plan."""
