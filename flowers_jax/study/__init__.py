"""The study as commands: its runs and ablations, tables, a report, and an audit of the images."""
