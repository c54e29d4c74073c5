"""Representation inversion: images that a network represents like target images.

invert       the loop over iterations: `invert_images` for notebooks, `invert_batches` for sweeps
slots        the images in progress, in static buffers, and the two bodies of an iteration on them
execution    how the bodies are executed: called, or captured as CUDA graphs and replayed
steps        update rules: the momentum step of the published recipe, and the faster path of `preset: fast`
engine       loss and descent direction of a batch
folding      the copy of a network that the engine evaluates: BatchNorm folded, channels last
precision    numeric precision of layers
calibrate    choice of the precision, by measurement
memory       batch sizes that fit into memory, and the memory of one iteration
flops        operations of a forward pass, and the peak of a device
"""
