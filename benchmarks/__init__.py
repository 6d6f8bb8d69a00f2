"""What `make bench` runs: other ways to do this work and this project, side by side.

One file an idea. Contenders: plain, lightning_trainer, ours, bare.
cells says what is trained, worker and rounds take turns and time, report writes results/.
`python -m benchmarks.run`.
"""
