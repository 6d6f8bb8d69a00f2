"""What is made of many runs: the table, sharpness, and the report with its figures and tests.

``table`` reads run folders, ``results`` adds what a report needs, ``families`` finds settings that
can be compared, ``comparison`` tests them. ``figures`` draws, once, what the page shows and the
files hold. ``content`` makes the sections with their headlines, and ``page`` the HTML.

Imports runs and the packages below it.
"""
