"""What rows must look like: one Pandera model per table."""
