"""The report of a run: one HTML page, figures and tables.

page         the page, and all files written
study        the page of a study of robustness, and all files written
figures      heatmaps, curves, gallery
svg          figures as SVG, PNG and WebP
tables       tables as CSV
"""
