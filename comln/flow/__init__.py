"""Gradient flows of a linear head, and ways to differentiate them: arrays and equations, nothing else."""
