"""The embedded world: captions, pictures, a detector and the pre-training of the tiny models.

``grammar`` says which captions exist and which are held out, ``scenes`` turns a caption into geometry,
``render`` draws it, ``detector`` reads a picture back and ``checker`` compares the two. The ``pretrain_*``
modules use them to make ``assets/tiny-flow``, ``assets/tiny-diffusion`` and ``assets/tiny-clip``.
Nothing here knows about reinforcement learning.
"""
