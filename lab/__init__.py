"""What makes results/: ``lab.theory``, ``lab.noise`` and ``lab.study``.

It imports igo. igo never imports it, and it is not in the wheel.
"""
