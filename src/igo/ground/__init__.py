"""What every room uses: errors, files, seeds, words, and the processes and cores of this machine.

It imports no other room.
"""
