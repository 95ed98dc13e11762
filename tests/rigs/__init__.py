"""Real servers that tests start: on free ports of 127.0.0.1, in a folder of the test's, ended by their process id."""
