"""A page that shows runs: what was logged and measured, and what was learned."""
