"""From an image folder to batches."""
