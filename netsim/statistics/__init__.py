"""Statistics of similarity matrices: what holds for other images and for other networks. Imports no torch.

networks     errors over networks: means, ceiling of replicates, parts of the variance
multiple     p-values of several tests, adjusted
"""
