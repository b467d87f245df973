"""What rows are checked by: contracts by Pandera, and the built-in checks of `@cascade_quality`."""
