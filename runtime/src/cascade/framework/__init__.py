"""Find workflows and assemble one `Definitions`."""
