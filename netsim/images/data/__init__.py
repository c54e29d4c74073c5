"""The images that are included in netsim, and the script that made them."""
