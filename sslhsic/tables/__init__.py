"""Tables of results: what they are, the jobs behind them, and how they are printed."""
