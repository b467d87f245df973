"""The servers of a project: prepared, started and stopped, in containers or on this machine."""
