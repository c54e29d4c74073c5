"""What a sweep will take, and what it would fail on, before it starts.

preflight    check networks, images and pairs
estimate     hours, bytes and FLOPs; probe: measure a network in a process of its own
"""
