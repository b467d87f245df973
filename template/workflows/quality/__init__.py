"""What must be true of a table before it may be promoted."""
