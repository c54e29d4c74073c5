"""Statistics of similarity matrices: what holds for other images and for other networks. Imports no torch.

multiple     p-values of several tests, adjusted
"""
