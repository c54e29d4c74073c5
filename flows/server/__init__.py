"""The Prefect server: the configured one, a running one, or a new one.

server       find or start it; offline: settings that disable its telemetry
credentials  S3 credentials from a block; deployment: settings for prefect.yaml
"""
