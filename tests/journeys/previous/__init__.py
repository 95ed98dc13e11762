"""Data folders that earlier versions of the code have written, cut off by SIGKILL: what a new version must go on with."""
