"""Data folders that earlier versions have written, cut off by SIGKILL: what a new version must go on with."""
