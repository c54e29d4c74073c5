"""Network sources, one module each."""
