"""Work of the stages: one module per stage, with `compute(run, name, shard) -> StageResult`.

work         compute and commit units, one after the other
inputs       what stages read: networks, images, devices
"""
