"""Tensors in, numbers out: what driftscope measures, without a model and without a disk.

`attention` describes CLS rows and full attention maps, `representation` compares features of the
same images before and after adaptation, `weights` compares parameters, `text` compares what the
image features say about texts.
"""
