"""Readers of image sets, one module per format. Each has `load(path, *, split, size)`, which `load_images` calls."""
