"""A project as files: what it defines, and everything that is wrong with it, without running it."""
