"""Depth estimation: the distance from the camera, in metres, for every pixel."""
