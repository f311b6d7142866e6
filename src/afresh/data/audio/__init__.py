"""Reading sounds: files, clips, waves, spectrograms and curves over time."""

SUFFIXES = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"})
