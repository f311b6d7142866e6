"""Rewards: built-in ones, functions, programs, classifiers, and models trained on votes."""
