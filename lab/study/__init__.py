"""The studies of results/study.md and results/exchange.md, from the records of runs."""
