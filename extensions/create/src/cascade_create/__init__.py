"""A source, a model or a check in one command: the files are as a person would write them, and green at once."""
