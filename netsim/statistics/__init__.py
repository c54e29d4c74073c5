"""Statistics of similarity matrices: what holds for other images and for other networks. Imports no torch.

networks     errors over networks: means, ceiling of replicates, parts of the variance
slopes       similarity as a function of the robustness of both networks
asymmetry    mirrored cells, and rows against columns
reliability  parts of targets and of their seeds in the error of a value
multiple     p-values of several tests, adjusted
mantel       agreement of two matrices of the same networks
clusters     clusters of networks with their support, and a map
"""
