"""The machinery of configuration: load, templates, explain, and the control page between processes."""
