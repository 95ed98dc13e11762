"""The command line: commands only; what they do is done by the node, or asked of a running one."""
