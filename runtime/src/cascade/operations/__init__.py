"""What people and programs ask of a lakehouse: one function each, which returns one record and emits typed events."""
