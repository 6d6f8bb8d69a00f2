"""What a run can be told: the typed settings, their rules, composing them with Hydra, --help.

Imports method, for the plan that a configuration means, and the ground files.
"""
