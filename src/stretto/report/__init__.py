"""What a run tells of itself while it goes on: on the terminal, in a log, as metrics."""
