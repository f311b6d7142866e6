"""Looking at a data set of `collect`: its numbers, its items beside what was left out, and a page of both."""
