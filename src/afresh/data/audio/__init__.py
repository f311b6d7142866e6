"""Reading sounds: files, clips, waves, spectrograms and curves over time."""
