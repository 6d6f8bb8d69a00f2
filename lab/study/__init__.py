"""The studies of results/: study.md and cifar100.md from records of runs, which_exchange.md."""
