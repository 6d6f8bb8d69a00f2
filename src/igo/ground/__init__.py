"""For all rooms: errors, files, paths, seeds, words, the processes of a run, cores.

Imports no other room.
"""
