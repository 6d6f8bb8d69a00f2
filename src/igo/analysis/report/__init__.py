"""The report of many runs: from run folders to figures, their data, and one page.

``results`` reads, ``families`` says what can be compared with what, ``comparison`` tests it and
``power`` says what could be seen; ``curves``, ``grid``, ``delta``, ``band`` and ``sharpness`` make
figures as plain data (``chart``), which ``draw`` turns into PNG and PDF and ``page`` into HTML;
``verdicts`` puts the results into tables of verdicts, and ``content`` all of it into sections.
"""
