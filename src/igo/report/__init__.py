"""The report of many runs: from run folders to figures, their data, and one page.

``results`` reads the runs, ``families`` finds settings that can be compared, ``comparison`` tests
them, and ``power`` says which differences the seeds can show. ``curves``, ``grid``, ``delta``,
``band`` and ``sharpness`` make figures as plain data (``chart``); ``draw`` turns them into PNG and
PDF, ``page`` into HTML. ``verdicts`` makes the tables of verdicts, ``content`` the sections.

Imports analysis and the packages below it.
"""
