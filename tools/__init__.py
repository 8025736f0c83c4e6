"""Developer tools that the Makefile calls; no part of what is installed."""
