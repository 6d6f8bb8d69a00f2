"""For all rooms: errors, files, paths, seeds, words, statistics, the processes of a run, cores.

Imports no other room.
"""
