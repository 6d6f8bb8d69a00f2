"""Lemma 2.1 measured on a network that igo's loop trains. results/noise has what was found."""
