"""For all rooms: errors, files, seeds, statistics, the processes of a run.

Imports no other room.
"""
