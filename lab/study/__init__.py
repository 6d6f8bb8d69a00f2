"""The studies of results/study.md and results/cifar100.md, from the records of runs."""
