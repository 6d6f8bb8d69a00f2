"""The studies of results/: cifar100.md and path.md, from records of runs."""
