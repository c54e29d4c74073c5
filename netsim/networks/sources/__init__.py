"""One module for each source of networks."""
