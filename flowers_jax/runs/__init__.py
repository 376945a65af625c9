"""The run folder: everything a run leaves behind."""
