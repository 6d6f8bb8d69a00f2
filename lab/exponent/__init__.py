"""The runs of results/exponent/protocol.md: the exponent of the batch size, measured on networks.

Question (i): `tasks` are the networks, `checkpoint` their minimum and Hessian, `chains` SGD from
there, `judge` the tests of the protocol, `page` the text. Each other question has its own modules.
"""
