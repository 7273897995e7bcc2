"""Runs as folders and workers as processes: where runs live, and how one is started, stopped, resumed."""
