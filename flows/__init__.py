"""Prefect flows that read like the paper's method section, and the command line that starts them."""
