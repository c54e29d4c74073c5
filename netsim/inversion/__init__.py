"""Representation inversion: the loop, its update rules, and the engine that evaluates a network quickly.

invert       `invert_images`, `invert_batches`: the loop over iterations
steps        update rules: the momentum step of the published recipe, and the faster path of `preset: fast`
engine       loss and descent direction of a batch
folding      the copy of a network that the engine evaluates: BatchNorm folded, channels last
precision    float32 or 16 bits; calibrate chooses
memory       how many images fit at a time
flops        operations of a forward pass, and the peak of a device
"""
