"""One reader for each format of image sets."""
