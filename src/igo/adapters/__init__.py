"""The schedule inside other people's trainers, a file each: lightning, transformers, accelerate."""
