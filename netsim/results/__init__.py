"""What a finished run found, read from its store. Imports no torch.

results      both matrices, means, losses, errors
as_json      the same as JSON
measured     other measures; layers: layers against layers
findings     the results in sentences, and every reason to doubt them
gallery      a few pairs to look at
published    published matrices to compare with
labelled     `open_run`: everything as labelled arrays
"""
