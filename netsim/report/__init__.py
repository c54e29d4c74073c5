"""The report of a run: one HTML page, figures and tables.

page         the page, and all files written
options      order, title, estimator, colour scale and width
study        the page of a study of robustness, and all files written
drawings     every figure of a report, drawn once, and its files
heatmaps     both matrices, and layers; panels: both on the page
figures      curves, clusters, maps, gallery
canvas       sizes, text and axes of figures
svg          figures as SVG, PDF, PNG and WebP
caption      the caption as text and for LaTeX, and BibTeX
tables       tables as CSV
"""
