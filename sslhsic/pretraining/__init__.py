"""Pre-training: what is trained (`model`, `state`) and one step of it (`step`)."""
