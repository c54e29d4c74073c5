"""Similarity of representations. Imports no torch.

cka          `linear_cka`, biased and unbiased; hsic has the sums it is computed from
streaming    exact sums over shards, with leave-one-out replicates
blocked      CKA from the Gram matrices of blocks, for any kernel
influence    influence of single images on CKA
retraining   predictions of retrained linear classifiers
uncertainty  standard errors by jackknife and half-sampling
measures     other similarity measures, one file each
"""
