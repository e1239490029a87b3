"""The losses in other people's code: `python -m examples.NAME`."""
