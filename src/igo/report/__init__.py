"""What is made of many runs: the table, and the report with its figures and tests.

``results`` reads run folders into three tables: a row for each run (``runs``, ``provenance``), for
each setting (``settings``), and for each epoch of a setting. ``target`` adds what a run needs to
reach an accuracy. ``table`` is `igo table`, and ``report`` is `igo report`. Its ``sections`` have
headlines, pairs and figures: ``comparison`` tests settings against each other, ``differences`` says
what else differs, ``names`` puts settings into words, ``formats`` writes numbers, and ``figures``
draws once with ``draw`` for the page and the files.

Imports runs and the packages below it.
"""
