"""Learning what is preferred or rewarded: methods, rewards, votes, and watching over them."""
