"""Measuring the noise of SGD: C² and δ of any model, from its gradients.

Imports ground alone, and needs neither a plan nor a run.
"""
