"""The studies of results/study.md and results/exchange.md: from runs to rows, verdicts, tables, figures."""
