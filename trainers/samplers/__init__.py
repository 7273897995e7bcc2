"""Transition kernels and the rollouts made of them, with and without branches."""
