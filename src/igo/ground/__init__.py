"""For all packages here: errors, files, seeds, words; the machine's processes, cores, memory, GPUs.

Imports none of them.
"""
