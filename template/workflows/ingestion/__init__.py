"""Where rows come from: one function per table."""
