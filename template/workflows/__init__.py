"""The project's workflows. Every file below this folder is found and loaded; nothing needs to be registered."""
