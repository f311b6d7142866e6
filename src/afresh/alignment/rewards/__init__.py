"""Rewards: built-in ones, functions, programs, classifiers and models of votes."""
