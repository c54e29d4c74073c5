"""Bytes anywhere fsspec reaches: a folder, S3. Knows nothing of runs."""
