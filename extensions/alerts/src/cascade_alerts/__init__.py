"""Tell people what fails in a project, once for each cause, and when it works again."""
