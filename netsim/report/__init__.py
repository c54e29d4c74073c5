"""The report of a run: one HTML page, figures and tables.

page         the page; figures: heatmaps, curves, galleries; svg: figures as bytes; tables: CSV
"""
