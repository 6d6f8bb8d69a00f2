"""The studies of results/: cifar100.md from records of runs, which_exchange.md."""
