"""Similarity of representations. Imports no torch.

cka          `linear_cka`, biased and unbiased; hsic: the sums it is made of
streaming    sums over shards with each shard left out; blocked: CKA of Gram matrices by blocks
uncertainty  jackknife and half-sampling; measures: other measures, one file each
"""
