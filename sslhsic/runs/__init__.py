"""The loop around an experiment: contract, runner, checkpoints, logs."""
