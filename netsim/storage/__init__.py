"""Reading and writing bytes anywhere fsspec can reach: a folder, S3. Knows nothing of runs.

places       which folder or object a path or URL names
files        files by their path below a folder or URL
s3           credentials, clients and errors of S3
concurrency  requests side by side
stopwatch    elapsed time, and the part of it spent waiting for storage
"""
