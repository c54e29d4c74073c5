"""Prefect's server: the one that is configured, one that runs already, or a new one.

server       find or start it; offline: settings that keep it to itself
credentials  S3 credentials from a block; deployment: settings for prefect.yaml
"""
