"""Weights in and out: the layouts of other libraries, safetensors files, exports."""
