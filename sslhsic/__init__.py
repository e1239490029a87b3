"""Self-supervised learning by kernel dependence maximisation (SSL-HSIC)."""
