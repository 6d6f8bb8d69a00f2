"""The report of many runs: from run folders to figures, their data, and one page.

``runs`` reads, ``families`` says what can be compared with what, ``numbers`` has the statistics;
``curves``, ``grid``, ``delta``, ``band`` and ``sharpness`` make figures as plain data (``chart``),
which ``draw`` turns into PNG and PDF and ``page`` into HTML; ``words`` puts the results into
sentences, and ``content`` all of it into sections.
"""
