"""Runs over HTTP: protocols for programs, pages for people."""
