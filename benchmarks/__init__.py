"""What `make bench` runs: other ways to do this work and this project, side by side.

Contenders: published, script, ours, limit; only ours imports igo. task says what
is trained, cells how long, worker and rounds take turns and time, run writes results/, page the
tables of docs/performance.md.
"""
