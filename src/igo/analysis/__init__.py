"""Programs that read runs (tables, sharpness), and the statistics that they use.

Imports runs and the packages below it.
"""
