"""The study of results/protocol.md: from runs to rows, verdicts and the README's table."""
