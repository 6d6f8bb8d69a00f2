"""What `make bench` runs: other ways to do this work and this project, side by side.

One file an idea. Contenders: plain, lightning_trainer, timm_pieces, ours, steady, bare.
cells says what is trained, worker and rounds take turns and time, startup, parallel, apart and
growth measure what a training step does not show, report writes results/.
`python -m benchmarks.run`.
"""
