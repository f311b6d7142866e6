"""Logs of who did what when: users' histories of items of a catalogue."""
