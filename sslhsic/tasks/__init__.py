"""Dense tasks: one package each, with its examples, network, loss and scores.

`task` is the contract between a task and the experiment that trains it. The packages
import nothing by themselves: worker processes need the examples, but not the networks.
"""
