"""Runs of results/exponent/protocol.md: the exponent that curvature predicts, measured on networks.

`tasks` are the networks, `checkpoint` their minimum and Hessian, `chains` the SGD from there,
`judge` the tests of the protocol, `page` the text.
"""
