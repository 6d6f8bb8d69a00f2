"""The schedule inside trainers of other libraries, one file for each."""
