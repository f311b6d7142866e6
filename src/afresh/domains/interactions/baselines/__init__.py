"""Baselines that every recommender is judged by. They know numbers of items alone.

Each file has a function `fit(histories, items, *, ...)`: `histories`, one array of item numbers 0 to V - 1 for each
user, in time order; V = `items`, the size of the catalogue. It returns a scorer, which takes any histories, of users
seen or unseen, and returns scores (B, V) in float32, higher for what is likelier to come next. Items that the history
holds are scored like all others.
"""
