"""The images that ship with netsim, and the script that made them."""
