"""The process around a run: commands, errors for people, signals, several processes."""
