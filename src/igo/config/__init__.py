"""The settings of a run: their types and rules, composing them with Hydra, and --help.

Imports method, for the plan that a configuration means, and the ground files.
"""
