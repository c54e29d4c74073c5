"""The cost of a sweep, and everything that would make it fail, before it starts.

preflight    check networks, images and pairs
probe        measure one network in a separate process
estimate     hours, bytes and FLOPs of the missing work
"""
