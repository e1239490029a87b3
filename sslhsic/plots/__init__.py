"""Figures: everything that draws, in one look, as PNG files or inside a page."""
