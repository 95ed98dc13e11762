"""What each process of a node is made of; build.py lists them."""
