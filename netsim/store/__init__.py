"""The store of a run: arrays, commit records, and what they say is done. Imports no torch.

run          `Run`: open or create a store, read and commit units
records      the commit record; metadata: its typed fields, by stage
arrays       specifications of arrays, chunks, checksums
layout       docs/reference/store.md as code: names of sets and rows, paths and shapes
stages       `Stage`: the units of each stage, what they need, which are missing
provenance   what a unit was computed from, and the checks of it
status       progress; throughput: images per second and share of the peak
"""
