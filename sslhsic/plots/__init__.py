"""Figures as PNG: logged scalars, embeddings, and sheets of examples."""
