"""The Prefect server: the configured one, a running one, or a new one.

server       find or start it; start: start one, once; offline: settings that disable its telemetry
access       why a server can't be used; listeners: who listens at a port
credentials  S3 credentials from a block; deployment: settings for prefect.yaml
"""
