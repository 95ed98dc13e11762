"""The tests; CONTRIBUTING.md says which kind goes where."""
