"""What features are worth: estimators, metrics, diagnostics, pictures."""
