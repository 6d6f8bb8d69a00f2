"""Programs that read runs: tables, the report, sharpness, C².

Imports runs and the packages below it.
"""
