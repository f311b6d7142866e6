"""Reading scores: files, words of notes, rendering."""
