"""Comparing runs: with the original study, with one another, and with what is in the images."""
