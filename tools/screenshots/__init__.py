"""The pictures of the console in the documentation: `python -m tools.screenshots`."""
