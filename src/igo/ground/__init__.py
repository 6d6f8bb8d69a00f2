"""What every room uses: errors, files, seeds, words; the machine's processes, cores, memory, GPUs.

It imports no other room.
"""
