"""`python -m lab.theory STUDY…`: the tables of the theory into results/theory.

Without a name all studies run; they take an hour. Each is a file of lab/theory/studies.
"""

import sys

from lab.theory import laboratory


def main() -> None:
    """Run the named studies."""
    names = sys.argv[1:]
    for name in names:
        if name in {"-h", "--help"}:
            print(__doc__, "\n".join(laboratory.STUDIES), sep="\n")
            return
        if name not in laboratory.STUDIES:
            sys.exit(f"error: no study {name!r}: there are {', '.join(laboratory.STUDIES)}")
    laboratory.run(names or laboratory.STUDIES)


if __name__ == "__main__":
    main()
