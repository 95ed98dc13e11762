"""What the Makefile runs. None of it is installed with Headwater."""
