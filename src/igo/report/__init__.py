"""The report of many runs: from run folders to figures, their data, and one page.

``results`` reads the runs, ``families`` finds settings that can be compared, ``comparison`` tests
them. ``figures`` draws, once, what the page shows and the files hold. ``content`` makes the
sections with their headlines, ``page`` the HTML, and ``program`` writes the folder.

Imports analysis and the packages below it.
"""
