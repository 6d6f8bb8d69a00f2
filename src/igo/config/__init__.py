"""The settings of a run: their types and rules, composing them with Hydra, and --help.

Imports plans, data and ground.
"""
