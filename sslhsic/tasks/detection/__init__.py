"""Object detection, in shapes that never change.

Boxes are (x1, y1, x2, y2) in pixels, with continuous coordinates: one that covers the
columns a to b has x1 = a and x2 = b + 1. Functions of boxes are of one image, to be
mapped.
"""
