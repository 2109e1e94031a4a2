"""Distillation engine: a batch of data sets in, one summary for each out.

`distiller.py` is the one loop over a state (`state.py`): begin, step, finish. The axes that it turns on lie beside it,
one idea a file: `objectives/` (what is matched), `networks/`, `parameterizations/` (what is optimised), `samplers/`,
`initializers.py`, `labels.py`, and `fedcl/training/augmentation.py`. `fit.py` says which of them go together.
"""
