"""What is made of many runs: the table, and the report with its figures and tests.

``results`` reads run folders into three tables: a row for each run (``runs``, ``provenance``), for
each setting (``settings``, which also puts settings into words), and for each epoch of a setting.
With a target accuracy runs have what they need to reach it. ``table`` is `igo table`, and
``report`` is `igo report`. Its ``sections`` have headlines, pairs and figures: ``comparison`` tests
settings against each other and says what else differs, ``formats`` writes numbers, and ``figures``
draws once with ``draw`` for the page and the files.

Imports runs and the packages below it.
"""
