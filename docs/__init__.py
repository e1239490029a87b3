"""The pages of the documentation, and the programs that write and build them."""
