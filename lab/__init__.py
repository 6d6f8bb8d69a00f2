"""The programs that make results/: ``lab.theory``, ``lab.noise``, ``lab.study``.

lab imports igo. igo never imports lab, and lab is not in the wheel. The benchmarks take their
tables and configurations from it.
"""
