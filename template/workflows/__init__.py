"""The project's workflows. Every file below this folder is found; nothing needs to be registered."""
