"""What a model of learners is judged by: baselines that predict answers, and scores of predictions."""
