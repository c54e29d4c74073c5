"""The results of a run, read from its store. Imports no torch.

results      both matrices, means and losses, with errors
matrices     cells of both matrices, from stored sums; partial: those of a run that is not finished
inference    errors over networks, asymmetry, clusters, maps
as_json      results as JSON
measured     results of other measures
layers       similarity of layers
findings     results in sentences, and reasons not to trust them
gallery      images of a few pairs
published    comparison with published matrices
labelled     results as labelled arrays and tables, for `netsim.open_run`
"""
