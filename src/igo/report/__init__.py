"""What is made of many runs: the table, and the report with its figures and tests.

``table`` reads run folders, and ``summary`` prints settings. ``results`` adds what a report needs,
``names`` puts settings into words, and ``comparison`` tests them against each other. ``content``
makes the sections: headlines, pairs and the figures, which ``figures`` draws once with ``draw`` for
the page and the files. ``page`` writes the HTML.

Imports runs and the packages below it.
"""
