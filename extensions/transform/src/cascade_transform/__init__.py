"""`@cascade_transform`: a Python function makes one table of others, where SQL cannot."""
