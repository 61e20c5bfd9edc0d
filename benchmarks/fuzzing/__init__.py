"""Fuzzing: problems with known answers, in any units and layouts, through every door and solver."""
