"""One node: its settings, its data folder, its processes, and the one place where everything is wired (build.py)."""
