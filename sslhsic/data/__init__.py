"""Images in: sources (data sets by name), images (crops), loader (batches)."""
