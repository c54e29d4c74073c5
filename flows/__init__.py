"""Prefect flows that read like the method section, and the command line that starts them."""
