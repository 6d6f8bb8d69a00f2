"""What is made of many runs: the table, and the report with its figures and tests.

``reading`` reads run folders, ``grouping`` averages them over seeds, and ``table`` is `igo table`.
``results`` adds what a report needs, ``names`` puts settings into words, and ``comparison`` tests
them against each other. ``content`` makes the sections: headlines, pairs and the figures, which
``figures`` draws once with ``draw`` for the page and the files. ``report`` is `igo report`.

Imports runs and the packages below it.
"""
