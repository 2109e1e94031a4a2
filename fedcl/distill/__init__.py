"""The distillation engine: a batch of data sets in, one summary for each out.

`distiller.py` is the one loop. The axes that it turns on lie beside it, one idea a file: `objectives/`
(what is matched), `parameterizations/` (what is optimised), `initial.py`, `labels.py`, `networks/`, and
`fedcl/training/augmentation.py`.
"""
