"""Bundles: a folder as one signed file, which is checked to the byte before anything of it is used.

`pack.pack_folder` writes one, `open.checked` checks one, `unpack.unpack` makes a folder of it. `layout` says how it
lies on the disk (an uncompressed tar) and `model_signing` how it is signed. Which files of a run are shared, and under
which licence, is a matter of `afresh.verbs.pack`.
"""
