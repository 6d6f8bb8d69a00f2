"""Half an hour on a borrowed GPU: `make gpu`, see docs/gpu.md."""
